"""Training batches from our loader and from a plain torchvision one, on the same files, with the same transforms.

    python benchmarks/loader.py [--sets cells boards large] [--jitter off on] [--batches N] [--rounds N] [--json FILE]

The plain loader: Pillow decodes, torchvision.transforms.v2 resizes (with antialiasing), mirrors, jitters and normalises
images and boxes, torch's DataLoader sends batches padded with zeros. Both take turns, with new workers each time, and
the clock runs from the first batches on; `ratio` is the median over the rounds of our images per second over theirs.
CPU times of the workers tell the same on a machine that others use too.
Memory is each process's share of what is resident (PSS; RSS counts shared pages in every process), the largest seen.

`cells` and `boards` are those of `DETECTION_DATA` (bccd, deeppcb) where it is set, else generated ones of the same
sizes; `large` is generated, 2048 x 2048. Without `DETECTION_DATA` nothing is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from tabulate import tabulate  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402
from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from engine.assembly.data import build_train_loader  # noqa: E402
from engine.config import CfgNode, get_cfg  # noqa: E402
from engine.files import read_json, write_json  # noqa: E402
from engine.structures.image_batch import padded_size  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = (0.2, 0.2, 0.2, 0.05)
DIVISIBILITY = 32
WARM_UP = 2  # batches of each worker


@dataclass(frozen=True)
class ImageSet:
    """Files and the size they are resized to.

    Attributes:
        real: (images, annotations) below `DETECTION_DATA`; () where there is no such set.
        size: (height, width) of the generated files.
        num_images: of the generated files.
        min_size, max_size: of the resized images.
        batch_size: images of a batch.
    """

    real: tuple[str, ...]
    size: tuple[int, int]
    num_images: int
    min_size: int
    max_size: int
    batch_size: int


SETS = {
    "cells": ImageSet(("bccd/train", "bccd/annotations/instances_train.json"), (480, 640), 64, 240, 320, 8),
    "boards": ImageSet(("deeppcb/train", "deeppcb/annotations/instances_train.json"), (640, 640), 64, 448, 448, 4),
    "large": ImageSet((), (2048, 2048), 12, 800, 1333, 2),
}


def write_set(folder: Path, images: ImageSet) -> tuple[Path, Path]:
    """Generated JPEGs with ten boxes each; (folder of the images, annotation file)."""
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    height, width = images.size
    data: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "part"}]}
    for index in range(images.num_images):
        coarse = random.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        picture = cv2.add(picture, random.integers(0, 12, picture.shape, dtype=np.uint8))  # a camera's noise
        cv2.imwrite(str(folder / f"images/{index}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        data["images"].append({"id": index, "file_name": f"{index}.jpg", "height": height, "width": width})
        for corner in random.integers(0, min(height, width) - 64, (10, 2)).tolist():
            row = {"image_id": index, "category_id": 1, "bbox": [*corner, 40, 50]}
            data["annotations"].append({"id": len(data["annotations"]) + 1, **row})
    write_json(folder / "annotations.json", data)
    return folder / "images", folder / "annotations.json"


# ---------------------------------------------------------------- ours


def build_config(paths: tuple[Path, Path], images: ImageSet, jitter: bool, num_workers: int) -> CfgNode:
    cfg = get_cfg()
    img_dir, ann_file = map(str, paths)
    cfg.DATASETS.CATALOG = {"set": {"img_dir": img_dir, "ann_file": ann_file}}
    cfg.DATASETS.TRAIN = ("set",)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (images.min_size,), images.max_size
    cfg.INPUT.TO_BGR255, cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = False, MEAN, STD
    if jitter:
        cfg.INPUT.BRIGHTNESS, cfg.INPUT.CONTRAST, cfg.INPUT.SATURATION, cfg.INPUT.HUE = JITTER
    cfg.DATALOADER.SIZE_DIVISIBILITY, cfg.DATALOADER.NUM_WORKERS = DIVISIBILITY, num_workers
    cfg.SOLVER.IMS_PER_BATCH, cfg.MODEL.DEVICE, cfg.SEED = images.batch_size, "cpu", 0
    return cfg


def our_batches(cfg: CfgNode, num_batches: int) -> Iterator[Tensor]:
    cfg.SOLVER.MAX_ITER = num_batches
    for batch in build_train_loader(cfg):
        yield batch.images.tensor


# ---------------------------------------------------------------- the plain one


class PlainDataset(Dataset):
    """An endless stream of the images, in the order of the file."""

    def __init__(self, paths: tuple[Path, Path], images: ImageSet, jitter: bool, length: int) -> None:
        data = read_json(paths[1])
        self.files = [paths[0] / row["file_name"] for row in data["images"]]
        self.boxes: dict[Any, list[list[float]]] = {row["id"]: [] for row in data["images"]}
        for row in data["annotations"]:
            self.boxes[row["image_id"]].append(row["bbox"])
        self.ids, self.length = list(self.boxes), length
        self.transform = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomShortestSize(images.min_size, images.max_size, antialias=True),
                v2.RandomHorizontalFlip(0.5),
                *([v2.ColorJitter(*JITTER)] if jitter else []),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        index = position % len(self.files)
        picture = Image.open(self.files[index]).convert("RGB")
        boxes = torch.tensor(self.boxes[self.ids[index]], dtype=torch.float32).reshape(-1, 4)
        size = (picture.height, picture.width)
        return self.transform(picture, tv_tensors.BoundingBoxes(boxes, format="XYWH", canvas_size=size))


def collate_plainly(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, list[Tensor]]:
    sides = [max(image.shape[axis] for image, _ in samples) for axis in (-2, -1)]
    batch = torch.zeros(len(samples), 3, *padded_size(tuple(sides), DIVISIBILITY))
    for slot, (image, _) in zip(batch, samples, strict=True):
        slot[:, : image.shape[-2], : image.shape[-1]] = image
    return batch, [boxes for _, boxes in samples]


def plain_batches(
    paths: tuple[Path, Path], images: ImageSet, jitter: bool, num_workers: int, num_batches: int
) -> Iterator[Tensor]:
    dataset = PlainDataset(paths, images, jitter, num_batches * images.batch_size)
    loader = DataLoader(dataset, images.batch_size, num_workers=num_workers, collate_fn=collate_plainly)
    for batch, _ in loader:
        yield batch


# ---------------------------------------------------------------- measuring


def megabytes(pid: int | str) -> dict[str, float]:
    """PSS and RSS of a process; {} where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in lines[1:])
    return {name.lower(): int(fields[name].split()[0]) / 1024 for name in ("Pss", "Rss")}


def cpu_seconds(pids: list[int]) -> float:
    """What these processes have used so far; 0 where the system does not tell."""
    total = 0.0
    with contextlib.suppress(OSError):
        for pid in pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def run(batches: Iterator[Tensor], num_workers: int, num_batches: int) -> tuple[float, float, dict[str, float]]:
    """Images per second after the warm-up, their CPU milliseconds in the workers, and the largest memory of any
    worker and of this process.
    """
    memory: dict[str, float] = {}
    workers: list[int] = []
    num_images, began, used, late_used = 0, 0.0, 0.0, 0.0
    for number, batch in enumerate(batches):
        num_images += len(batch)
        if number == WARM_UP * max(num_workers, 1) - 1:
            workers = [child.pid for child in multiprocessing.active_children()]
            for name, pids in (("worker", workers), ("main", ["self"])):
                for figure in map(megabytes, pids):
                    for kind, value in figure.items():
                        memory[f"{name}_{kind}_mb"] = max(memory.get(f"{name}_{kind}_mb", 0.0), value)
            num_images, began, used = 0, time.perf_counter(), cpu_seconds(workers)
        if number == num_batches - 1:
            late_used = cpu_seconds(workers)
    return num_images / (time.perf_counter() - began), 1000 * (late_used - used) / max(num_images, 1), memory


def compare(paths: tuple[Path, Path], images: ImageSet, jitter: bool, args: argparse.Namespace) -> dict[str, Any]:
    num_batches = WARM_UP * max(args.workers, 1) + args.batches
    cfg = build_config(paths, images, jitter, args.workers)
    sides: dict[str, Callable[[], Iterator[Tensor]]] = {
        "ours": lambda: our_batches(cfg, num_batches),
        "plain": lambda: plain_batches(paths, images, jitter, args.workers, num_batches),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    memory: dict[str, dict[str, float]] = {}
    for _ in range(args.rounds):
        for name, start in sides.items():
            rate, milliseconds, memory[name] = run(start(), args.workers, num_batches)
            rates[name].append(rate)
            cpu[name].append(milliseconds)
    ratios = [ours / plain for ours, plain in zip(rates["ours"], rates["plain"], strict=True)]
    return {
        "ours": median(rates["ours"]),
        "plain": median(rates["plain"]),
        "ratio": median(ratios),
        "lowest_ratio": min(ratios),
        "ours_cpu_ms": median(cpu["ours"]),
        "plain_cpu_ms": median(cpu["plain"]),
        **{f"{name}_{figure}": value for name, figures in memory.items() for figure, value in figures.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--jitter", nargs="+", choices=("off", "on"), default=["off", "on"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=40, metavar="N", help="batches of a turn that are timed")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each loader")
    parser.add_argument("--target", type=float, default=1.5, help="the ratio that every row must reach (1.5)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    root = os.environ.get("DETECTION_DATA")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for set_name in args.sets:
            images = SETS[set_name]
            real = [Path(root) / path for path in images.real] if root else []
            is_real = bool(real) and all(path.exists() for path in real)
            paths = tuple(real) if is_real else write_set(Path(name) / set_name, images)
            for jitter in args.jitter:
                row = {"set": set_name, "real": is_real, "jitter": jitter}
                rows.append({**row, **compare(paths, images, jitter == "on", args)})
    speed = ("set", "jitter", "ours", "plain", "ratio", "lowest_ratio", "ours_cpu_ms", "plain_cpu_ms")
    print(f"images per second with {args.workers} workers, and CPU milliseconds of the workers per image")
    print(tabulate([[row[each] for each in speed] for row in rows], headers=speed, floatfmt=".2f"))
    sizes = [each for each in rows[0] if each.endswith("_mb")]
    if sizes:
        print("\nMB of the largest worker and of the main process")
        table = [[row[each] for each in ("set", "jitter", *sizes)] for row in rows]
        headers = ["set", "jitter", *(each.removesuffix("_mb").replace("_", " ") for each in sizes)]
        print(tabulate(table, headers=headers, floatfmt=".0f"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    return 0 if all(row["ratio"] >= args.target for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
