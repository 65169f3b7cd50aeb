"""`engine.assembly.process`: a process is prepared for a run."""

from __future__ import annotations

import errno
import os
import warnings
from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from engine import folder_lock
from engine.assembly.process import output_dir_claimed, prepare, releasing_output_dir, write_config
from engine.config import get_cfg
from engine.errors import InputError
from engine.folder_lock import LOCK_FILE
from engine.log import CONFIG_FILE, setup_logging


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: True)  # it would stay on for other tests
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "run")])
    yield cfg
    setup_logging()  # closes log.txt
    folder_lock.release(tmp_path / "run")


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


def test_a_run_claims_its_folder_until_its_end(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after an error; with a test to follow, until the end of the process."""
    lock = tmp_path / "run" / LOCK_FILE

    @releasing_output_dir
    def run(cfg: CfgNode, resume: bool = False, will_test: bool = False) -> None:
        prepare(cfg)
        assert lock.exists()
        raise InputError("a mistake")

    with pytest.raises(InputError, match="a mistake"):
        run(cfg)
    assert not lock.exists() and (tmp_path / "run" / "log.txt").exists()
    with pytest.raises(InputError, match="a mistake"):
        run(cfg, will_test=True)
    assert lock.exists()
    with output_dir_claimed(cfg):
        assert lock.exists()
    assert lock.exists()  # it was this process's before
    folder_lock.release(tmp_path / "run")
    with output_dir_claimed(cfg):
        assert lock.exists()
    assert not lock.exists()


def test_a_refused_run_does_not_touch_the_log(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def claim(folder: Path) -> str:
        raise InputError("in use")

    monkeypatch.setattr(folder_lock, "claim", claim)
    for use in (prepare, write_nothing):
        with pytest.raises(InputError, match="^in use$"):
            use(cfg)
    assert list((tmp_path / "run").iterdir()) == []


def write_nothing(cfg: CfgNode) -> None:
    with output_dir_claimed(cfg):
        raise AssertionError("unreachable")


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_cannot_hold_the_lock(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(folder_lock.os, "open", refuse)
    with pytest.raises(InputError, match=rf"^OUTPUT_DIR .*run cannot be written to \({os.strerror(number)}\); choose"):
        prepare(cfg)


def test_operators_without_deterministic_form_are_one_line(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a GPU torch warns of some with two lines on stderr; other warnings are shown as before."""
    shown: list[str] = []

    def show(message: Warning | str, *where: object) -> None:
        shown.append(str(message))

    monkeypatch.setattr(warnings, "showwarning", show)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode, warn_only: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cfg.DETERMINISTIC = True
    for _ in range(2):
        prepare(cfg)
    why = "but you set 'torch.use_deterministic_algorithms(True, warn_only=True)'. You can file an issue"
    for text in (f"max_pool2d_backward_cuda does not have a deterministic implementation, {why}", "something else"):
        warnings.showwarning(text, UserWarning, "a.py", 3)
    assert shown == ["something else"]
    assert capsys.readouterr().out.count("torch has no deterministic max_pool2d_backward_cuda here: two runs") == 1
