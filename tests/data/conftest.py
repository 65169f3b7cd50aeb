from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.config import get_cfg

WriteCoco = Callable[..., Path]


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture that JPEG keeps well: colour gradients, different for each seed."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.float32)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    return smooth_image


@pytest.fixture
def write_coco(tmp_path: Path) -> WriteCoco:
    """Writes `root/NAME/images/*.png` and `root/NAME/ann.json`; returns the folder.

    Images are (id, height, width); annotations are written as given.
    """

    def write(
        images: list[tuple[int | str, int, int]],
        annotations: list[dict[str, Any]],
        categories: tuple[tuple[int, str], ...] = ((7, "hole"), (3, "scratch")),
        name: str = "toy",
        with_sizes: bool = True,
        changes: dict[str, Any] | None = None,
    ) -> Path:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        rows = []
        for number, (image_id, height, width) in enumerate(images):
            file_name = f"{number}.png"
            cv2.imwrite(str(folder / "images" / file_name), smooth_image(height, width, number))
            sizes = {"height": height, "width": width} if with_sizes else {}
            rows.append({"id": image_id, "file_name": file_name, **sizes})
        data = {
            "images": rows,
            "annotations": annotations,
            "categories": [{"id": i, "name": n} for i, n in categories],
        }
        data.update(changes or {})
        (folder / "ann.json").write_text(json.dumps(data))
        return folder

    return write


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
