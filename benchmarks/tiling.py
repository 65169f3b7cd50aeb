"""Tiles against whole pictures: AP of 16-pixel defects in large generated images, with the same training budget.

    python benchmarks/tiling.py [--device cuda] [--side 2048] [--iterations N] [--output-dir D] [--json FILE]

Both runs have the same images, network, iterations and batch, and the same pixels per iteration: `side / 4` squared for
each of eight inputs, which is the whole picture scaled down, or a tile as it is. The images are woven fabric
(datasets/generate_fabric.py) with holes and knots of 14 to 18 pixels; they are kept in `--output-dir`, and so are runs,
which are not repeated. The exit code is 1 where the whole pictures reach AP50 0.2 or the tiles do not reach 0.6.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
CLASS_NAMES = ("hole", "knot")
DEFECTS = 12  # per image
SIZES = (14, 19)  # of a defect, pixels; the latter excluded
NUM_TRAIN, NUM_VAL = 24, 8
BATCH = 8
MOST_WHOLE, LEAST_TILED = 0.2, 0.6  # AP50
WARM_UP = 50


def load_fabric() -> ModuleType:
    """datasets/generate_fabric.py, which is a script."""
    spec = importlib.util.spec_from_file_location("generate_fabric", ROOT / "datasets" / "generate_fabric.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def draw_image(seed: int, side: int) -> tuple[np.ndarray, list[tuple[int, list[int]]]]:
    """An image BGR uint8 (side, side, 3), and (category index, [x, y, width, height]) for each defect."""
    fabric, random = load_fabric(), np.random.default_rng([seed, 16])
    threads = fabric.lay_threads(random, side, side)
    image = fabric.shade(threads)
    taken, defects = np.zeros((side, side), bool), []
    drawers = (fabric.draw_hole, fabric.draw_knot)
    for _ in range(DEFECTS):
        kind = int(random.integers(len(drawers)))
        window = fabric.place(random, tuple(random.integers(*SIZES, 2).tolist()), taken)
        if window is None:
            continue
        box = fabric.bounds(drawers[kind](random, image, threads, window) >= fabric.VISIBLE, window)
        taken[window] = True
        if box is not None:
            defects.append((kind, box))
    image *= fabric.light(random, side, side)
    image += random.normal(0, 0.015, (side, side, 1)).astype(np.float32)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), defects


def write_image(path: Path, seed: int, side: int) -> list[tuple[int, list[int]]]:
    """Draw one and write it; returns its defects."""
    cv2.setNumThreads(1)
    image, defects = draw_image(seed, side)
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    return defects


def write_split(folder: Path, split: str, count: int, side: int, pool: ProcessPoolExecutor) -> None:
    """`count` images and their COCO file, unless it is there."""
    ann_file = folder / f"{split}.json"
    if ann_file.exists():
        return
    (folder / split).mkdir(parents=True, exist_ok=True)
    names = [f"{k:04d}.jpg" for k in range(count)]
    seeds = [k + 10_000 * (split == "val") for k in range(count)]
    found = pool.map(write_image, [folder / split / name for name in names], seeds, [side] * count)
    rows = [(k, kind, box) for k, defects in enumerate(found, start=1) for kind, box in defects]
    coco = {
        "images": [{"id": k, "file_name": name, "height": side, "width": side} for k, name in enumerate(names, 1)],
        "annotations": [
            {"id": number, "image_id": k, "category_id": kind + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for number, (k, kind, box) in enumerate(rows, start=1)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(CLASS_NAMES, 1)],
    }
    ann_file.write_text(json.dumps(coco), encoding="utf-8")


def keys_of(args: argparse.Namespace, data: Path, is_tiled: bool) -> list[str]:
    """KEY VALUE pairs; only the last line differs between the two runs."""
    size = args.side // 4
    catalog = {f"fine_{split}": {"img_dir": split, "ann_file": f"{split}.json"} for split in ("train", "val")}
    pairs = {
        "MODEL.DEVICE": args.device,
        "MODEL.ATSS.ANCHOR_SIZES": "(16, 32, 64, 128, 256)",
        "DATASETS.ROOT": data,
        "DATASETS.CATALOG": catalog,
        "DATASETS.TRAIN": "('fine_train',)",
        "DATASETS.TEST": "('fine_val',)",
        "INPUT.MIN_SIZE_TRAIN": f"({size},)",
        "INPUT.MAX_SIZE_TRAIN": size,
        "INPUT.MIN_SIZE_TEST": size,
        "INPUT.MAX_SIZE_TEST": size,
        "DATALOADER.NUM_WORKERS": args.workers,
        "SOLVER.IMS_PER_BATCH": BATCH,
        "SOLVER.MAX_ITER": args.iterations,
        "SOLVER.WARMUP_ITERS": min(WARM_UP, args.iterations // 4),
        "SEED": 0,
    }
    if is_tiled:
        pairs |= {"TILING.SIZE": size, "TILING.OVERLAP": 32, "DATALOADER.EMPTY_SHARE": 0.25}
    return [str(word) for pair in pairs.items() for word in pair]


def run(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Train and test as `tools/train_net.py` does; the figures."""
    folder, data = args.output_dir / name, args.output_dir / "images"
    began = time.perf_counter()
    if not list(folder.glob("inference/*/metrics.json")):
        pairs = [*keys_of(args, data, name == "tiles"), "OUTPUT_DIR", str(folder)]
        config = ROOT / "configs" / "quickstart" / "_base_atss_R_18_cpu.yaml"
        command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", str(config), *pairs]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: exit code {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    figures = json.loads(next(folder.glob("inference/*/metrics.json")).read_text(encoding="utf-8"))["bbox"]
    return {"input": name, "AP50": figures["AP50"], "AP": figures["AP"], "seconds": time.perf_counter() - began}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--side", type=int, default=2048, help="of the images, pixels (2048); tiles are a quarter")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8), help="loader processes")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/tiling"), help="what is there is not repeated")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    args.output_dir = args.output_dir.resolve()
    with ProcessPoolExecutor() as pool:
        for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
            write_split(args.output_dir / "images", split, count, args.side, pool)
    rows = [run(args, name) for name in ("whole", "tiles")]
    print(tabulate(rows, headers="keys", floatfmt=".3f"))
    outcome = {"device": args.device, "side": args.side, "iterations": args.iterations, "batch": BATCH, "rows": rows}
    print(json.dumps(outcome))
    if args.json:
        args.json.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    return int(rows[0]["AP50"] >= MOST_WHOLE or rows[1]["AP50"] < LEAST_TILED)


if __name__ == "__main__":
    sys.exit(main())
