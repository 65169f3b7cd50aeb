"""`engine.assembly.process`: a process is prepared for a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from engine.assembly.process import prepare, write_config
from engine.config import get_cfg
from engine.errors import InputError
from engine.log import CONFIG_FILE, setup_logging


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: True)  # it would stay on for other tests
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "run")])
    yield cfg
    setup_logging()  # closes log.txt


def test_a_folder_that_cannot_hold_the_log(cfg: CfgNode) -> None:
    (Path(cfg.OUTPUT_DIR) / "log.txt").mkdir(parents=True)
    with pytest.raises(InputError, match="OUTPUT_DIR .*run cannot be written to"):
        prepare(cfg)


def test_a_resumed_run_keeps_its_seed(cfg: CfgNode) -> None:
    prepare(cfg)
    write_config(cfg)
    seed, again = cfg.SEED, cfg.clone()
    again.defrost()
    again.SEED = -1
    prepare(again, resume=True)
    assert again.SEED == seed >= 0


def test_resuming_with_a_damaged_configuration_of_the_run(cfg: CfgNode) -> None:
    Path(cfg.OUTPUT_DIR).mkdir()
    (Path(cfg.OUTPUT_DIR) / CONFIG_FILE).write_bytes(b"SEED: [\xff")
    prepare(cfg, resume=True)
    assert cfg.SEED >= 0


def test_a_slip_in_a_word_is_answered_before_the_run_begins(cfg: CfgNode) -> None:
    """With IMPORTS the configuration lets it pass; the registry does not."""
    cfg.merge_from_list(["IMPORTS", "('json',)", "TEST.BBOX_AUG.MERGE_TYPE", "softvote"])
    cfg.freeze()
    with pytest.raises(
        InputError, match=r"^command line: TEST.BBOX_AUG.MERGE_TYPE must be one of vote, soft-vote, nms, "
    ):
        prepare(cfg)
    assert not Path(cfg.OUTPUT_DIR).exists()
