"""Parameters, operations (multiply-adds) and activations of a model by module, for one test image.

python tools/model_complexity.py --config-file configs/atss/atss_R_50_FPN_1x.yaml --depth 3
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yacs.config import CfgNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=f"{summary} The weights are random; nothing is downloaded.")
    parser.add_argument("--config-file", required=True, metavar="F", help="YAML configuration")
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="height and width of the image, pixels (INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST)",
    )
    parser.add_argument("--depth", type=int, default=2, metavar="N", help="show modules down to this depth (2)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args(arguments)
    if args.depth < 0:
        parser.error("--depth must not be negative")
    if args.size and min(args.size) < 1:
        parser.error("--size must be positive")
    return args


def class_names(cfg: CfgNode) -> list[str]:
    """Those of the training set where the configuration leaves the number of classes to it."""
    from engine.data.build import build_train_dataset
    from engine.modeling.build import dense_group

    group = dense_group(cfg) if cfg.MODEL.RPN_ONLY else "ROI_BOX_HEAD"
    if cfg.MODEL[group].NUM_CLASSES:
        return []
    try:
        return list(build_train_dataset(cfg).class_names)
    except InputError as error:
        raise InputError(f"{error}; or tell the number of classes: MODEL.{group}.NUM_CLASSES K+1") from None


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.config import load_config

    # Without suppression the second stage gets as many regions as it may, whatever the random weights propose.
    cfg = load_config(args.config_file, [*args.opts, "MODEL.WEIGHT", "", "MODEL.RPN.NMS_THRESH", "0.0"])

    from engine.evaluation.complexity import ADAPTIVE_SAMPLES, complexity, complexity_table
    from engine.modeling.build import build_device, build_model

    size = tuple(args.size) if args.size else (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    cost = complexity(build_model(cfg, class_names(cfg)), size, build_device(cfg))
    step = cfg.DATALOADER.SIZE_DIVISIBILITY
    padded = tuple(-(-side // step) * step for side in size) if step > 1 else size
    print(f"one image of {size[0]} x {size[1]} (height x width), padded to {padded[0]} x {padded[1]}")
    if cost.num_regions is not None:
        print(f"second stage: {cost.num_regions} regions")
    print(f"\n{complexity_table(cost, args.depth)}\n")
    print("GMAC: 10^9 multiply-adds, which fvcore calls FLOPs; who counts products and sums apart has twice as many.")
    print("Norms count 2 (batch) or 5 (group) an element. Activations: outputs of convolutions and matrix products.")
    if cost.num_regions is not None and cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO == 0:
        print(
            f"POOLER_SAMPLING_RATIO 0 takes more samples from larger regions: counted as {ADAPTIVE_SAMPLES} x "
            f"{ADAPTIVE_SAMPLES} a cell."
        )
    operators = ", ".join(sorted(name.split("::")[-1] for name in cost.uncounted))
    print(f"Not counted: {operators}.")


if __name__ == "__main__":
    run_tool(main)
