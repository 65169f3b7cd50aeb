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
    "tiles": {"TILING.SIZE": 64, "TILING.OVERLAP": 20, "TILING.KEEP_FULL": True, "TEST.IMS_PER_BATCH": 4},
}


def config(world: World, device: str, settings: dict[str, Any]) -> CfgNode:
    pairs = {"MODEL.DEVICE": device, "DATASETS.ROOT": str(world.root), **settings}
    return load_config(world.config, [str(word) for pair in pairs.items() for word in pair])


def images_of(world: World) -> list[Path]:
    return sorted((world.root / "val").glob("*.jpg"))


@pytest.mark.parametrize("name", VARIANTS)
def test_predictor(gpu_world: World, gpu_trained: Trained, name: str) -> None:
    found = []
    for device in (str(DEVICE), "cpu"):
        predict = Predictor(config(gpu_world, device, VARIANTS[name]), gpu_trained.model, threshold=0.0)
        assert predict.device.type == device
        found.append(predict(images_of(gpu_world)))
    for ours, theirs in zip(*found, strict=True):
        assert ours.boxes.device.type == "cpu" and ours.size == theirs.size and len(theirs) > 10
        assert share_found(ours, theirs) > 0.95 and share_found(theirs, ours) > 0.95  # the order of near-equal scores


def test_images_in_batches(gpu_world: World, gpu_trained: Trained) -> None:
    together = Predictor(config(gpu_world, str(DEVICE), {"TEST.IMS_PER_BATCH": 4}), gpu_trained.model, threshold=0.0)
    alone = Predictor(config(gpu_world, str(DEVICE), {}), gpu_trained.model, threshold=0.0)
    for ours, theirs in zip(together(images_of(gpu_world)), alone(images_of(gpu_world)), strict=True):
        assert share_found(ours, theirs) > 0.95 and share_found(theirs, ours) > 0.95


def test_test_net(gpu_world: World, gpu_trained: Trained, tmp_path: Path) -> None:
    """As after the training, in another process."""
    done = command(gpu_world, "tools/test_net.py", "MODEL.WEIGHT", gpu_trained.model, "OUTPUT_DIR", tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    again = tmp_path / "inference" / "fabric_val"
    ours, theirs = (read_json(folder / "metrics.json")["bbox"] for folder in (again, gpu_trained.inference))
    assert ours == pytest.approx(theirs, abs=0.01)
    ours, theirs = (read_json(folder / "bbox.json") for folder in (again, gpu_trained.inference))
    assert abs(len(ours) - len(theirs)) <= len(theirs) // 20


def test_demo(gpu_world: World, gpu_trained: Trained, tmp_path: Path) -> None:
    options = ["--weights", gpu_trained.model, "--images-dir", gpu_world.root / "val", "--output-dir", tmp_path]
    done = command(gpu_world, "demo/atss_demo.py", *options, "--threshold", "0.1")
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    pictures = sorted(tmp_path.iterdir())
    assert [path.name for path in pictures] == [path.name for path in images_of(gpu_world)]
    assert all(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is not None for path in pictures)
