"""What each row of a table of detectors costs: CPU seconds per training step and per image in testing, side by side.

    python benchmarks/detectors.py --config-file configs/bccd/atss_Lite0_bccd.yaml @benchmarks/tables/detectors.txt
    [--reference F] [--size H W] [--batch N] [--turns N] [--json FILE] [KEY VALUE ...]

The rows are `--reference` (ATSS R-18), the configuration as it is, and each `--variant` (see recipes.py). All take
turns on one thread, on random images and boxes and with random weights, so that testing suppresses hardly anything. The
times are medians of the CPU time of a call, in the precision of the configuration.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tabulate import tabulate

from benchmarks.recipes import BASELINE, Variant, parse_variant
from benchmarks.steps import NUM_CLASSES, random_batch
from engine.assembly.device import build_device
from engine.assembly.model import build_model
from engine.assembly.solver import build_optimizer
from engine.assembly.training import build_precision
from engine.config import load_config
from engine.data.batch import Batch
from engine.training.loop import train_step

REFERENCE = "configs/bccd/atss_R_18_bccd.yaml"


def build_calls(config_file: str, keys: Sequence[str], batch: Batch) -> tuple[Callable[[], object], ...]:
    """A training step and the test of one image of a row, ready to be timed."""
    cfg = load_config(config_file, [*keys, "MODEL.WEIGHT", "", "MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    names = [f"class {k}" for k in range(NUM_CLASSES)]
    model, tested = build_model(cfg, names).train(), build_model(cfg, names).eval()
    optimizer, precision = build_optimizer(cfg, model), build_precision(cfg, build_device(cfg))
    image = batch.images.tensor[:1]

    @torch.inference_mode()
    def test() -> object:
        return tested(list(image))

    return lambda: train_step(model, [batch], optimizer, precision), test


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], fromfile_prefix_chars="@")
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--reference", default=REFERENCE, help="the first row (%(default)s)")
    parser.add_argument("--variant", action="append", type=parse_variant, default=[], help='"name: KEY VALUE ..."')
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("H", "W"), help="multiples of 32")
    parser.add_argument("--batch", type=int, default=4, metavar="N", help="images per step")
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="timed calls of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("pairs", nargs="*", metavar="KEY VALUE", help="hold for all rows")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    batch = random_batch(args.batch, tuple(args.size))
    reference = Path(args.reference).stem
    calls = {reference: build_calls(args.reference, args.pairs, batch)}
    for variant in (Variant(BASELINE), *args.variant):
        calls[variant.name] = build_calls(args.config_file, [*args.pairs, *variant.pairs], batch)
    times: dict[str, list[list[float]]] = {name: [] for name in calls}
    for _ in range(args.turns + 1):
        for name, row in calls.items():
            times[name].append([seconds(call) for call in row])
    rows = []
    for name, turns in times.items():
        step, image = (median(each) for each in zip(*turns[1:], strict=True))  # the first turn warms up
        rows.append({"row": name, "seconds per step": step, "seconds per image": image})
    for row in rows:
        for figure in ("step", "image"):
            row[f"{figure} / {reference}"] = row[f"seconds per {figure}"] / rows[0][f"seconds per {figure}"]
    print(tabulate(rows, headers="keys", floatfmt=".3f"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
