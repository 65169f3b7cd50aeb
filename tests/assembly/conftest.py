from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config import get_cfg


@pytest.fixture
def toy_cfg(tmp_path: Path) -> Any:
    """A configuration for the folders `toy` and `other` of `write_coco`; small images, no workers."""
    cfg = get_cfg()
    cfg.DATASETS.ROOT = str(tmp_path)
    for name in ("toy", "other"):
        entry = type(cfg)({"img_dir": f"{name}/images", "ann_file": f"{name}/ann.json"})
        cfg.DATASETS.CATALOG[name] = entry
    cfg.DATASETS.TRAIN = ("toy",)
    cfg.INPUT.MIN_SIZE_TRAIN = (16,)
    cfg.INPUT.MAX_SIZE_TRAIN = 32
    cfg.INPUT.MIN_SIZE_TEST = 16
    cfg.INPUT.MAX_SIZE_TEST = 32
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.SOLVER.MAX_ITER = 6
    cfg.TEST.IMS_PER_BATCH = 4
    cfg.MODEL.DEVICE = "cpu"
    cfg.SEED = 5
    return cfg
