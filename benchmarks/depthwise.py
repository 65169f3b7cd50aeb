"""Depthwise convolutions of EfficientNet-Lite0 in training on a CPU: torch's in bfloat16 and float32 beside ours.

    python benchmarks/depthwise.py [--size H W] [--batch N] [--repeats N] [--threads N] [--json FILE]

Forward and backward pass, channels last. All variants take turns, so that a busy machine slows all of them alike, and
the least time of each counts; `ratio` is that of torch's bfloat16 over ours, `to float32` that of float32 over ours.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from tabulate import tabulate  # noqa: E402
from torch import nn  # noqa: E402

from engine.layers.depthwise import DepthwiseConv2d  # noqa: E402

SHAPES = [  # channels, kernel size, stride, stride of the input map, how many of them
    (32, 3, 1, 2, 1),
    (96, 3, 2, 2, 1),
    (144, 3, 1, 4, 1),
    (144, 5, 2, 4, 1),
    (240, 5, 1, 8, 1),
    (240, 3, 2, 8, 1),
    (480, 3, 1, 16, 2),
    (480, 5, 1, 16, 1),
    (672, 5, 1, 16, 2),
    (672, 5, 2, 16, 1),
    (1152, 5, 1, 32, 3),
    (1152, 3, 1, 32, 1),
]


def build_pass(layer: nn.Module, x: torch.Tensor, in_bfloat16: bool) -> Callable[[], float]:
    """One pass forward and back; gives its milliseconds."""
    x = (x.bfloat16() if in_bfloat16 else x).requires_grad_()
    with torch.no_grad():
        grad = torch.randn_like(layer(x.float())).to(x.dtype)

    def run() -> float:
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            y = layer(x)
        y.backward(grad)
        return 1000 * (time.perf_counter() - began)

    return run


def measure(args: argparse.Namespace) -> list[dict[str, object]]:
    rows = []
    for channels, kernel_size, stride, map_stride, count in SHAPES:
        size = [side // map_stride for side in args.size]
        x = torch.randn(args.batch, channels, *size).contiguous(memory_format=torch.channels_last)
        plain = nn.Conv2d(channels, channels, kernel_size, stride, kernel_size // 2, groups=channels, bias=False)
        ours = DepthwiseConv2d(channels, kernel_size, stride, bias=False)
        passes = {
            "float32": build_pass(plain, x.clone(), False),
            "bfloat16": build_pass(plain, x.clone(), True),
            "ours": build_pass(ours, x.clone(), True),
        }
        best = dict.fromkeys(passes, float("inf"))
        for turn in range(args.repeats + 1):
            for name, run in passes.items():
                took = run()
                if turn:  # the first one compiles kernels
                    best[name] = min(best[name], took)
        rows.append(_row(f"{channels} k{kernel_size} s{stride} {size[0]}x{size[1]}", count, best))
    total = {name: sum(row["count"] * row[f"{name} ms"] for row in rows) for name in best}
    return [*rows, _row("all", sum(row["count"] for row in rows), total)]


def _row(name: str, count: int, milliseconds: dict[str, float]) -> dict[str, object]:
    ours = milliseconds["ours"]
    return {
        "layer": name,
        "count": count,
        **{f"{variant} ms": each for variant, each in milliseconds.items()},
        "ratio": milliseconds["bfloat16"] / ours,
        "to float32": milliseconds["float32"] / ours,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("H", "W"), help="multiples of 32")
    parser.add_argument("--batch", type=int, default=4, metavar="N")
    parser.add_argument("--repeats", type=int, default=7, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    rows = measure(args)
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
