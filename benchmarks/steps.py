"""Training steps in half precision, channels last and compiled, beside float32 as torch lays it out by default.

    python benchmarks/steps.py [--config-file F] [--size H W] [--batch N] [--steps N] [--json FILE] [KEY VALUE ...]

Images and boxes are random, and weights too. All variants take turns, a step each, so that a busy machine slows all of
them alike; `ratio` is the median time of float32 over that of the variant. On a GPU float16 and `SOLVER.COMPILE` join.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from tabulate import tabulate  # noqa: E402

from engine.assembly.device import build_device  # noqa: E402
from engine.assembly.model import build_model  # noqa: E402
from engine.assembly.solver import build_optimizer  # noqa: E402
from engine.assembly.training import build_precision  # noqa: E402
from engine.config import load_config  # noqa: E402
from engine.data.batch import Batch  # noqa: E402
from engine.structures import ImageBatch, Targets  # noqa: E402
from engine.training.loop import train_step  # noqa: E402

NUM_CLASSES, NUM_BOXES = 3, 10
WARM_UP = 2  # steps, not counted
PLAIN = {"SOLVER.AMP.ENABLED": False, "MODEL.CHANNELS_LAST": False, "SOLVER.COMPILE": False}
VARIANTS = {
    "float32": {},
    "float32, channels last": {"MODEL.CHANNELS_LAST": True},
    "bfloat16": {"SOLVER.AMP.ENABLED": True},
    "bfloat16, channels last": {"SOLVER.AMP.ENABLED": True, "MODEL.CHANNELS_LAST": True},
}
ON_GPU = {
    "float16, channels last": {**VARIANTS["bfloat16, channels last"], "SOLVER.AMP.DTYPE": "float16"},
    "bfloat16, channels last, compiled": {**VARIANTS["bfloat16, channels last"], "SOLVER.COMPILE": True},
}


def random_batch(batch_size: int, size: tuple[int, int]) -> Batch:
    height, width = size
    generator = torch.Generator().manual_seed(0)
    targets = []
    for image_id in range(batch_size):
        corners = torch.rand(NUM_BOXES, 2, generator=generator) * torch.tensor([width, height]) * 0.7
        sides = torch.rand(NUM_BOXES, 2, generator=generator) * min(size) * 0.2 + 8
        labels = torch.randint(NUM_CLASSES, (NUM_BOXES,), generator=generator)
        boxes = torch.cat([corners, corners + sides], 1)
        targets.append(Targets(boxes, labels, torch.zeros(NUM_BOXES, dtype=torch.bool), image_id, size))
    return Batch(ImageBatch(torch.randn(batch_size, 3, *size, generator=generator), [size] * batch_size), targets)


def build_step(config_file: str, keys: list[str], variant: dict[str, object], batch: Batch) -> Callable[[], float]:
    """One step of a model of its own; gives its seconds."""
    settings = [str(word) for pair in {**PLAIN, **variant}.items() for word in pair]
    cfg = load_config(config_file, [*keys, *settings])
    device = build_device(cfg)
    torch.manual_seed(0)
    model = build_model(cfg, [f"class {k}" for k in range(NUM_CLASSES)]).train()
    optimizer, precision = build_optimizer(cfg, model), build_precision(cfg, device)
    if cfg.SOLVER.COMPILE:
        model.backbone.compile()
    moved = batch.to(device)

    def step() -> float:
        began = time.perf_counter()
        train_step(model, [moved], optimizer, precision)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return step


def measure(args: argparse.Namespace) -> list[dict[str, object]]:
    batch = random_batch(args.batch, tuple(args.size))
    variants = VARIANTS | (ON_GPU if build_device(load_config(args.config_file, args.opts)).type == "cuda" else {})
    steps = {name: build_step(args.config_file, args.opts, variant, batch) for name, variant in variants.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + args.steps):
        for name, step in steps.items():
            took = step()
            if turn >= WARM_UP:
                seconds[name].append(took)
    plain = median(seconds["float32"])
    return [
        {"variant": name, "ms": 1000 * median(each), "ratio": plain / median(each)} for name, each in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", default="configs/bccd/atss_R_18_bccd.yaml", metavar="F")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 320), metavar=("H", "W"), help="multiples of 32")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="images a step")
    parser.add_argument("--steps", type=int, default=8, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args()
    torch.set_flush_denormal(True)
    rows = measure(args)
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
