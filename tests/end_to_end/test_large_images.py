"""The memory that a picture of 12,000 x 8,000 pixels takes, in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.end_to_end.conftest import run

LIMIT_GB = 2.0
DEEP_LIMIT_GB = 4.0  # floats in 0..255: 1.15 GB for the pixels alone, and as much again while they are made
SIDES = (8000, 12000)

PREDICT = """
import resource, sys
import torch
from engine.assembly.detector import build_detector
from engine.assembly.model import build_model
from engine.inference.predictor import ImagePredictor
from tests.modeling.two_stage import small_config

cfg = small_config("atss/atss_R_50_FPN_1x.yaml", **{
    "TILING.SIZE": 1024, "TILING.OVERLAP": 128, "TILING.KEEP_FULL": True, "TEST.IMS_PER_BATCH": 4,
    "INPUT.MIN_SIZE_TEST": 256, "INPUT.MAX_SIZE_TEST": 384,
})
torch.set_num_threads(1)
model = build_model(cfg, list("abcde")).eval()
predictor = ImagePredictor(*build_detector(cfg, model), torch.device("cpu"), list("abcde"))
print(predictor(sys.argv[1]).size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""

TRAIN = """
import resource, sys
import torch
from engine.assembly.data import build_train_loader
from engine.config import get_cfg

cfg = get_cfg()
cfg.merge_from_list([
    "DATASETS.ROOT", sys.argv[2], "DATASETS.TRAIN", "('large',)",
    "DATASETS.CATALOG", {"large": {"img_dir": ".", "ann_file": "large.json"}}, "INPUT.VALUE_RANGE", (0.0, 4095.0),
    "TILING.SIZE", 1024, "TILING.KEEP_FULL", True, "INPUT.MIN_SIZE_TRAIN", (512,), "INPUT.MAX_SIZE_TRAIN", 768,
    "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 8, "DATALOADER.FILTER_EMPTY", True,
    "MODEL.DEVICE", "cpu", "SEED", 0,
])
torch.set_num_threads(1)
ids = [target.image_id for batch in build_train_loader(cfg) for target in batch.targets]
assert any("full" in each for each in ids) and len(set(ids)) > 3
print(len(ids), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    random = np.random.default_rng(0)
    cells = random.integers(0, 256, (80, 120, 3), np.uint8)
    image = cv2.resize(cells, SIDES[::-1], interpolation=cv2.INTER_LINEAR)
    cv2.imwrite(str(folder / "large.jpg"), image)
    cv2.imwrite(str(folder / "deep.png"), image[..., 0].astype(np.uint16) * 16, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    row = {"id": 1, "file_name": "large.jpg", "height": SIDES[0], "width": SIDES[1]}
    boxes = [[100, 100, 30, 30], [3000, 2000, 500, 400], [4000, 3000, 5000, 2000]]
    annotations = [{"id": k, "image_id": 1, "category_id": 1, "bbox": box} for k, box in enumerate(boxes)]
    content = {"images": [row], "annotations": annotations, "categories": [{"id": 1, "name": "dent"}]}
    (folder / "large.json").write_text(json.dumps(content))
    return folder


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize(
    ("code", "name", "limit"),
    [(PREDICT, "large.jpg", LIMIT_GB), (PREDICT, "deep.png", DEEP_LIMIT_GB), (TRAIN, "large.jpg", LIMIT_GB)],
)
def test_peak_memory(folder: Path, code: str, name: str, limit: float) -> None:
    done = run(["-c", code, folder / name, folder])
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert float(done.stdout.split()[-1]) < limit
