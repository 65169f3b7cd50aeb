"""A trained model finds the same on the GPU as on the CPU: `Predictor`, test-time augmentation, the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine import Predictor
from engine.config import CfgNode, load_config
from tests.cuda.conftest import command
from tests.cuda.device import DEVICE, needs_device
from tests.cuda.test_models import share_found
from tests.end_to_end.conftest import Trained, World, read_json

pytestmark = needs_device

AUGMENTED = {
    "TEST.BBOX_AUG.ENABLED": True,
    "TEST.BBOX_AUG.H_FLIP": True,
    "TEST.BBOX_AUG.SCALES": (64, 128),
    "TEST.BBOX_AUG.SCALE_H_FLIP": True,
    "TEST.BBOX_AUG.MAX_SIZE": 256,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "soft-vote": {**AUGMENTED, "TEST.BBOX_AUG.VOTE": True, "TEST.BBOX_AUG.MERGE_TYPE": "soft-vote"},
    "vote": {**AUGMENTED, "TEST.BBOX_AUG.VOTE": True, "TEST.BBOX_AUG.MERGE_TYPE": "vote"},
    "nms of all candidates": {**AUGMENTED, "TEST.BBOX_AUG.VOTE": False},
}


def config(world: World, device: str, settings: dict[str, Any]) -> CfgNode:
    pairs = {"MODEL.DEVICE": device, "DATASETS.ROOT": str(world.root), **settings}
    return load_config(world.config, [str(word) for pair in pairs.items() for word in pair])


def images_of(world: World) -> list[Path]:
    return sorted((world.root / "val").glob("*.jpg"))


@pytest.mark.parametrize("name", VARIANTS)
def test_predictor(world: World, trained: Trained, name: str) -> None:
    found = []
    for device in (str(DEVICE), "cpu"):
        predict = Predictor(config(world, device, VARIANTS[name]), trained.model, threshold=0.0)
        assert predict.device.type == device
        found.append(predict(images_of(world)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.boxes.device.type == "cpu" and ours.size == theirs.size and len(theirs) > 10
        assert share_found(ours, theirs) > 0.95 and share_found(theirs, ours) > 0.95  # the order of near-equal scores


def test_images_in_batches(world: World, trained: Trained) -> None:
    together = Predictor(config(world, str(DEVICE), {"TEST.IMS_PER_BATCH": 4}), trained.model, threshold=0.0)
    alone = Predictor(config(world, str(DEVICE), {}), trained.model, threshold=0.0)
    for ours, theirs in zip(together(images_of(world)), alone(images_of(world)), strict=True):
        assert share_found(ours, theirs) > 0.95 and share_found(theirs, ours) > 0.95


def test_test_net(world: World, trained: Trained, tmp_path: Path) -> None:
    """As after the training, in another process."""
    done = command(world, "tools/test_net.py", "MODEL.WEIGHT", trained.model, "OUTPUT_DIR", tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    again = tmp_path / "inference" / "fabric_val"
    ours, theirs = (read_json(folder / "metrics.json")["bbox"] for folder in (again, trained.inference))
    assert ours == pytest.approx(theirs, abs=0.01)
    ours, theirs = (read_json(folder / "bbox.json") for folder in (again, trained.inference))
    assert abs(len(ours) - len(theirs)) <= len(theirs) // 20


def test_test_net_with_augmentation(world: World, trained: Trained, tmp_path: Path) -> None:
    keys = [str(word) for pair in VARIANTS["soft-vote"].items() for word in pair]
    done = command(world, "tools/test_net.py", "MODEL.WEIGHT", trained.model, "OUTPUT_DIR", tmp_path, *keys)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert (tmp_path / "inference" / "fabric_val" / "metrics.json").exists()


def test_demo(world: World, trained: Trained, tmp_path: Path) -> None:
    options = ["--weights", trained.model, "--images-dir", world.root / "val", "--output-dir", tmp_path]
    done = command(world, "demo/atss_demo.py", *options, "--threshold", "0.1")
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    pictures = sorted(tmp_path.iterdir())
    assert [path.name for path in pictures] == [path.name for path in images_of(world)]
    assert all(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is not None for path in pictures)
