"""Test a trained model on DATASETS.TEST.

python tools/test_net.py --config-file F MODEL.WEIGHT outputs/mine/model_final.pth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool
from engine.files import user_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Test a trained model on DATASETS.TEST.")
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument(
        "--write-thresholds",
        action="store_true",
        help="store the thresholds of the first test set in the checkpoint MODEL.WEIGHT",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="overrides of the configuration: MODEL.WEIGHT W, ...",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from engine.config import load_config

    cfg = load_config(args.config_file, args.opts)  # reports mistakes before torch is imported
    if not cfg.MODEL.WEIGHT:
        raise InputError("no weights to test: add MODEL.WEIGHT path/to/model_final.pth to the command")
    if not cfg.DATASETS.TEST:
        raise InputError("nothing to test on: DATASETS.TEST is empty")

    from engine import distributed, evaluate
    from engine.assembly.detector import build_trained_model
    from engine.checkpoint import check_storable, store_thresholds
    from engine.signals import SignalWatch, nothing_to_save

    if args.write_thresholds:
        check_storable(cfg.MODEL.WEIGHT)
    with SignalWatch(nothing_to_save("in testing: nothing was changed")), distributed.process_group():
        outcomes = evaluate(cfg, build_trained_model(cfg))
        if args.write_thresholds and distributed.is_main():
            store_thresholds(cfg.MODEL.WEIGHT, outcomes[cfg.DATASETS.TEST[0]]["thresholds"])


if __name__ == "__main__":
    run_tool(main)
