"""Memory of a training over thousands of iterations, and what a loader worker adds to it with a large annotation file.

    python benchmarks/memory.py [--iterations 5000] [--boxes 200000] [--json FILE]

Runs `tools/train_net.py` on generated pictures of 64 x 64 pixels and reads from /proc (Linux), every few seconds, the
resident memory of the main process and what belongs to each loader worker alone (pages it shares with the main process
cost nothing). Flat is: the mean of the last tenth of the samples lies less than FLAT_MB above the mean of the second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parents[1]
FLAT_MB, WORKER_MB = 20, 50
NUM_WORKERS = 2
SIDE, NUM_IMAGES = 64, 64

CONFIG = """\
MODEL:
  DEVICE: cpu
  WEIGHT: ""
  RPN_ONLY: True
  ATSS_ON: True
  PIXEL_CONVENTION: continuous
  BACKBONE: {CONV_BODY: R-18-FPN-RETINANET, FREEZE_CONV_BODY_AT: 0}
  RESNETS: {NORM: BN, BACKBONE_OUT_CHANNELS: 32}
  RETINANET: {USE_C5: False}
  ATSS: {NUM_CLASSES: 0, NUM_CONVS: 1}
DATASETS:
  CATALOG: {tiny: {img_dir: images, ann_file: annotations.json}}
  TRAIN: [tiny]
INPUT: {MIN_SIZE_TRAIN: [64], MAX_SIZE_TRAIN: 64}
DATALOADER: {SIZE_DIVISIBILITY: 32}
SOLVER: {IMS_PER_BATCH: 2, BASE_LR: 0.0001, STEPS: [], CHECKPOINT_PERIOD: 0, LOG_PERIOD: 100}
"""


def write_data(folder: Path, num_boxes: int) -> None:
    """NUM_IMAGES pictures on the disk; the annotation file names each of them often enough to hold `num_boxes` boxes.

    Seven boxes an entry, as in COCO.
    """
    random = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for index in range(NUM_IMAGES):
        cv2.imwrite(str(folder / f"images/{index}.png"), random.integers(0, 255, (SIDE, SIDE, 3), np.uint8))
    num_entries = max(num_boxes // 7, NUM_IMAGES)
    images = [
        {"id": index, "file_name": f"{index % NUM_IMAGES}.png", "height": SIDE, "width": SIDE}
        for index in range(num_entries)
    ]
    corners, sides = random.integers(0, 40, (num_boxes, 2)), random.integers(8, 24, (num_boxes, 2))
    annotations = [
        {"id": row, "image_id": row % num_entries, "category_id": 1 + row % 3, "bbox": [*corner, *side], "iscrowd": 0}
        for row, (corner, side) in enumerate(zip(corners.tolist(), sides.tolist(), strict=True))
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate("abc", 1)]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "annotations.json").write_text(text)
    (folder / "config.yaml").write_text(CONFIG)


def resident_mb(pid: int) -> float:
    """Pages in memory, shared ones too."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


def own_mb(pid: int) -> float:
    """Pages that no other process shares: what would be free without it."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(fields[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1024


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def watch(folder: Path, iterations: int, seconds: float) -> dict[str, list[float]]:
    """Train, and give the samples of the main process and of each worker (megabytes)."""
    script = str(REPOSITORY / "tools" / "train_net.py")
    keys = ["DATASETS.ROOT", str(folder), "OUTPUT_DIR", str(folder / "run"), "SOLVER.MAX_ITER", str(iterations)]
    keys += ["DATALOADER.NUM_WORKERS", str(NUM_WORKERS)]
    command = [sys.executable, script, "--config-file", str(folder / "config.yaml"), "--skip-test", *keys]
    samples: defaultdict[str, list[float]] = defaultdict(list)
    with (
        (folder / "output.txt").open("w") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        while process.poll() is None:
            time.sleep(seconds)
            try:
                workers = children(process.pid)
                if len(workers) < NUM_WORKERS or not (folder / "run" / "metrics.jsonl").is_file():
                    continue  # not there yet, or going
                taken = {"main": resident_mb(process.pid)}
                taken |= {f"worker {k}": own_mb(pid) for k, pid in enumerate(sorted(workers))}
            except (FileNotFoundError, ProcessLookupError, KeyError):
                continue  # ended meanwhile
            for name, value in taken.items():
                samples[name].append(value)
    if process.returncode:
        raise SystemExit((folder / "output.txt").read_text())
    return dict(samples)


def growth(values: list[float]) -> tuple[float, float]:
    """Means of the second and of the last tenth: the first one still fills caches."""
    tenth = max(len(values) // 10, 1)
    return float(np.mean(values[tenth : 2 * tenth])), float(np.mean(values[-tenth:]))


def measure(iterations: int, num_boxes: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        small, large = Path(name) / "small", Path(name) / "large"
        write_data(small, 7 * NUM_IMAGES)
        write_data(large, num_boxes)
        long = {process: growth(values) for process, values in watch(small, iterations, 2.0).items()}
        wide = watch(large, max(iterations // 10, 100), 0.5)
    return {
        "iterations": iterations,
        "flat": {process: {"early_mb": early, "late_mb": late} for process, (early, late) in long.items()},
        "boxes": num_boxes,
        "largest_mb": {process: max(values) for process, values in wide.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--boxes", type=int, default=200_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    result = measure(args.iterations, args.boxes)
    rows = [(name, each["early_mb"], each["late_mb"]) for name, each in result["flat"].items()]
    print(f"{args.iterations} iterations: MB early and late")
    print(tabulate(rows, headers=("process", "early", "late"), floatfmt=".1f"))
    print(f"\n{args.boxes} boxes: largest MB; of a worker what it does not share")
    print(tabulate(list(result["largest_mb"].items()), headers=("process", "MB"), floatfmt=".1f"))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    is_flat = all(each["late_mb"] - each["early_mb"] < FLAT_MB for each in result["flat"].values())
    is_small = all(mb < WORKER_MB for name, mb in result["largest_mb"].items() if name != "main")
    print(f"\nflat (less than {FLAT_MB} MB more): {is_flat}; workers below {WORKER_MB} MB: {is_small}")
    return 0 if is_flat and is_small else 1


if __name__ == "__main__":
    sys.exit(main())
