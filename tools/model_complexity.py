"""Show parameters, operations (multiply-adds) and activations of a model by module, for one test image.

python tools/model_complexity.py --config-file configs/atss/atss_R_50_FPN_1x.yaml --depth 3
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=f"{summary} Weights are random; nothing is downloaded.")
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="height and width of the image in pixels (largest in testing: INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST)",
    )
    parser.add_argument("--depth", type=int, default=2, metavar="N", help="show modules down to this depth (2)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args(arguments)
    if args.depth < 0:
        parser.error("--depth must not be negative")
    if args.size and min(args.size) < 1:
        parser.error("--size must be positive")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.config import load_config

    cfg = load_config(args.config_file, args.opts)

    from engine.assembly.analysis import analyze_complexity

    print(analyze_complexity(cfg, tuple(args.size) if args.size else None, args.depth))


if __name__ == "__main__":
    run_tool(main)
