"""A tiny data set with a configuration, and faults to plant in it."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CLASSES = ("scratch", "dent", "hole")
NUM_TRAIN, NUM_VAL = 12, 6
HEIGHT, WIDTH = 96, 128

CONFIG = """\
MODEL:
  DEVICE: cpu
  WEIGHT: ""
  RPN_ONLY: True
  ATSS_ON: True
  PIXEL_CONVENTION: continuous
  BACKBONE: {CONV_BODY: R-18-FPN-RETINANET, FREEZE_CONV_BODY_AT: 0}
  RESNETS: {NORM: GN, BACKBONE_OUT_CHANNELS: 32}
  RETINANET: {USE_C5: False}
  ATSS: {NUM_CLASSES: 0, NUM_CONVS: 1, ANCHOR_SIZES: [32, 64, 128, 256, 512]}
DATASETS:
  CATALOG:
    toy_train: {img_dir: train, ann_file: train.json}
    toy_val: {img_dir: val, ann_file: val.json}
  TRAIN: ("toy_train",)
  TEST: ("toy_val",)
INPUT: {MIN_SIZE_TRAIN: [96], MAX_SIZE_TRAIN: 128, MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 128}
DATALOADER: {NUM_WORKERS: 1, SIZE_DIVISIBILITY: 32}
SOLVER: {BASE_LR: 0.001, IMS_PER_BATCH: 2, MAX_ITER: 60, STEPS: [40], WARMUP_ITERS: 5, CHECKPOINT_PERIOD: 0}
"""


def picture(seed: int) -> np.ndarray:
    """A picture unlike those of other seeds, BGR uint8 (HEIGHT, WIDTH, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def annotations_of(num_images: int) -> dict[str, Any]:
    """Three boxes in each image, one of each class, none equal to another."""
    images = [{"id": k, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH} for k in range(1, num_images + 1)]
    boxes = [
        {
            "id": 3 * image["id"] + label,
            "image_id": image["id"],
            "category_id": label + 1,
            "bbox": [4 + 40 * label + image["id"] % 5, 8 + 2 * image["id"], 30 + label, 28 + image["id"] % 3],
        }
        for image in images
        for label in range(len(CLASSES))
    ]
    for box in boxes:
        box |= {"area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0}
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)]
    return {"images": images, "annotations": boxes, "categories": categories}


@dataclass
class Toy:
    """The data set in a folder of its own, for changing it.

    Attributes:
        root: folder of `train`, `val`, `train.json` and `val.json`.
        train, val: contents of the annotation files, written by `save`.
        keys: KEY VALUE pairs for the configuration.
    """

    root: Path
    train: dict[str, Any]
    val: dict[str, Any]
    keys: list[Any] = field(default_factory=list)

    @property
    def boxes(self) -> list[dict[str, Any]]:
        """The annotations of the training set."""
        return self.train["annotations"]

    @property
    def config(self) -> Path:
        """The YAML file."""
        return self.root / "toy.yaml"

    def image(self, number: int = 1, part: str = "train") -> Path:
        """The file of an image."""
        return self.root / part / f"{number}.png"

    def set(self, *keys: Any) -> None:
        """Change the configuration."""
        self.keys += keys

    def save(self) -> None:
        """Write the annotation files, unless a fault has written one itself."""
        for name, data in (("train", self.train), ("val", self.val)):
            if data is not None:
                (self.root / f"{name}.json").write_text(json.dumps(data))


def write_base(root: Path) -> Path:
    """The images of the data set and its configuration."""
    for part, count, first in (("train", NUM_TRAIN, 0), ("val", NUM_VAL, 100)):
        (root / part).mkdir(parents=True)
        for number in range(1, count + 1):
            cv2.imwrite(str(root / part / f"{number}.png"), picture(first + number))
    (root / "toy.yaml").write_text(CONFIG)
    return root


def toy_in(folder: Path, base: Path) -> Toy:
    """A copy of the data set."""
    shutil.copytree(base, folder)
    train, val = annotations_of(NUM_TRAIN), annotations_of(NUM_VAL)
    for image in val["images"]:  # names of their own
        (folder / "val" / image["file_name"]).rename(folder / "val" / f"v{image['file_name']}")
        image["file_name"] = f"v{image['file_name']}"
    return Toy(folder, train, val)


@dataclass(frozen=True)
class Fault:
    """A planted fault: its name, how it is planted, and the codes of the findings that it must lead to."""

    name: str
    plant: Callable[[Toy], object]
    codes: tuple[str, ...]
    opens_images: bool = False


FAULTS: list[Fault] = []


def fault(*codes: str, opens_images: bool = False) -> Callable[[Callable[[Toy], object]], Callable[[Toy], object]]:
    """Register a function that plants a fault under its own name."""

    def add(plant: Callable[[Toy], object]) -> Callable[[Toy], object]:
        FAULTS.append(Fault(plant.__name__, plant, codes, opens_images))
        return plant

    return add


def each_box(toy: Toy, change: Callable[[list[float]], Sequence[float]]) -> None:
    """Change every box of the training set."""
    for row in toy.boxes:
        row["bbox"] = list(change(row["bbox"]))
        row.pop("area", None)


def another(row: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of an annotation under an id of its own."""
    return {**copy.deepcopy(row), "id": 9000 + row["id"], **changes}
