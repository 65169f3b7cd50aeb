"""The valid inputs that are changed: a tiny data set, a configuration for it, and images."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import cv2
import numpy as np

CONFIG: dict[str, Any] = {
    "MODEL": {
        "DEVICE": "cpu",
        "RPN_ONLY": True,
        "ATSS_ON": True,
        "PIXEL_CONVENTION": "continuous",
        "BACKBONE": {"CONV_BODY": "R-18-FPN-RETINANET", "FREEZE_CONV_BODY_AT": 0},
        "RESNETS": {"NORM": "BN", "BACKBONE_OUT_CHANNELS": 32, "WIDTH_PER_GROUP": 4, "STEM_OUT_CHANNELS": 4},
        "RETINANET": {"USE_C5": False},
        "ATSS": {"NUM_CLASSES": 0, "NUM_CONVS": 1, "PRE_NMS_TOP_N": 20},
    },
    "DATASETS": {
        "ROOT": ".",
        "CATALOG": {"tiny": {"img_dir": "images", "ann_file": "tiny.json"}},
        "TRAIN": "('tiny',)",
        "TEST": "('tiny',)",
    },
    "INPUT": {"MIN_SIZE_TRAIN": "(32,)", "MAX_SIZE_TRAIN": 48, "MIN_SIZE_TEST": 32, "MAX_SIZE_TEST": 48},
    "DATALOADER": {"NUM_WORKERS": 0, "SIZE_DIVISIBILITY": 32},
    "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 2, "STEPS": "(1,)", "WARMUP_ITERS": 0, "CHECKPOINT_PERIOD": 1},
    "TEST": {"IMS_PER_BATCH": 2},
    "SEED": 3,
    "OUTPUT_DIR": "out",
}
"""A narrow ATSS on three images of 24 x 32 pixels; paths are relative to the folder of the example."""

NAMES = ("a.png", "b.jpg", "c.bmp")
CLASS_NAMES = ("stain", "破洞")


def coco() -> dict[str, Any]:
    """Three images, the last one without boxes; sparse category ids, one crowd, one box beyond its image."""
    boxes = [(1, 3, [2, 3, 10, 8], 0), (1, 7, [5.5, 4, 9, 9], 0), (1, 3, [0, 0, 31, 23], 1), (2, 7, [20, 10, 20, 9], 0)]
    return {
        "info": {"year": 2024},
        "images": [{"id": k + 1, "file_name": name, "height": 24, "width": 32} for k, name in enumerate(NAMES)],
        "categories": [{"id": 7, "name": CLASS_NAMES[0]}, {"id": 3, "name": CLASS_NAMES[1]}],
        "annotations": [
            {"id": k + 1, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": crowd}
            for k, (i, c, b, crowd) in enumerate(boxes)
        ],
    }


def results() -> list[dict[str, Any]]:
    """Detections in these images, as bbox.json holds them."""
    rows = [
        (1, 3, [2.5, 3, 10, 8], 0.9),
        (1, 7, [5, 4, 9, 9], 0.8),
        (2, 7, [20, 10, 11, 9], 0.7),
        (3, 3, [1, 1, 4, 4], 0.1),
    ]
    return [{"image_id": i, "category_id": c, "bbox": box, "score": score} for i, c, box, score in rows]


def picture(seed: int = 0, height: int = 24, width: int = 32) -> np.ndarray:
    """BGR uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_dataset(folder: Path) -> None:
    """Images and `tiny.json`."""
    (folder / "images").mkdir(exist_ok=True)
    for seed, name in enumerate(NAMES):
        cv2.imwrite(str(folder / "images" / name), picture(seed))
    (folder / "tiny.json").write_text(json.dumps(coco()), encoding="utf-8")


def random_of(kind: str, seed: int, number: int) -> Random:
    """The source of all chance in one example."""
    return Random(f"{kind} {seed} {number}")
