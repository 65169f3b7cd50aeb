"""The recipes can be started as their head comments say: with the quickstart data and three keys."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from engine.assembly.model import class_count
from engine.config import load_config

ALL = sorted(Path("configs/recipes").glob("*.yaml"))
FOR_CPUS = [path for path in ALL if load_config(path).MODEL.DEVICE == "cpu"]
RECIPES = [path for path in ALL if path not in FOR_CPUS]


def command(path: Path) -> list[str]:
    """The words of the training command in a recipe's head comment."""
    head = "\n".join(line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line[:1] == "#")
    found = re.search(r"^python tools/train_net.py (?:.*\\\n)*.*$", head, flags=re.M)
    assert found, path
    return shlex.split(found[0].replace("\\\n", " "))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_three_keys_train_on_the_quickstart_data(path: Path) -> None:
    _, script, flag, file, *keys = command(path)
    assert (flag, file) == ("--config-file", str(path)) and Path(script).is_file()
    assert len(keys) == 2 * 3 and keys[:2] == ["DATASETS.ROOT", "datasets/fabric"]
    cfg = load_config(path, keys)
    for data_set in cfg.DATASETS.CATALOG.values():
        assert data_set["img_dir"] in ("train", "val") and data_set["ann_file"].startswith("annotations/instances_")
    assert class_count(cfg)[1] == 0


@pytest.mark.parametrize("path", FOR_CPUS, ids=lambda path: path.stem)
def test_cpus_train_without_a_network(path: Path) -> None:
    """From random weights, or from those that a package ships."""
    _, script, flag, file, *keys = command(path)
    assert (flag, file) == ("--config-file", str(path)) and Path(script).is_file()
    cfg = load_config(path, keys)
    assert not cfg.MODEL.WEIGHT or cfg.MODEL.WEIGHT.startswith("package://")
    assert cfg.SOLVER.IMS_PER_BATCH <= 8


def test_fabric() -> None:
    paths = [path for path in ALL if path.name.startswith("fabric_cascade")]
    c3_c5, c5 = (False, True, True, True), (False, False, False, True)
    assert [load_config(path).MODEL.RESNETS.STAGE_WITH_DCN for path in paths] == [c3_c5, c5, c5]
    for cfg in map(load_config, paths):
        assert len(cfg.MODEL.RPN.ASPECT_RATIOS) == 9
        assert (min(cfg.MODEL.RPN.ASPECT_RATIOS), max(cfg.MODEL.RPN.ASPECT_RATIOS)) == (0.02, 50)
        assert cfg.MODEL.ROI_HEADS.SAMPLER == "ohem" and cfg.MODEL.CLS_AGNOSTIC_BBOX_REG
        stds = [[1 / weight for weight in stage] for stage in cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS]
        expected = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
        assert stds == [pytest.approx(stage) for stage in expected]
        tested = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        assert tested == ((256, 320) if cfg.MODEL.DEVICE == "cpu" else (500, 1223))
