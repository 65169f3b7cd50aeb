"""Train a model from a YAML file, then test it.

python tools/train_net.py --config-file configs/quickstart/atss_R_18_fabric.yaml OUTPUT_DIR outputs/mine
torchrun --nproc-per-node=2 tools/train_net.py --config-file ...
python -m torch.distributed.launch --nproc_per_node=2 tools/train_net.py --config-file ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import user_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a model from a YAML file, then test it.")
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--skip-test", action="store_true", help="do not test the final model")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from engine.config import load_config

    cfg = load_config(args.config_file, args.opts)  # reports mistakes before torch is imported

    from engine import distributed, evaluate, train
    from engine.checkpoint import store_thresholds
    from engine.errors import EXIT_SAVED
    from engine.signals import SignalWatch, nothing_to_save

    with (
        SignalWatch(nothing_to_save("outside of training and testing: there was nothing to save")) as watch,
        distributed.process_group(),
    ):
        model = train(cfg, resume=args.resume, will_test=not args.skip_test)
        if cfg.DATASETS.TEST and not args.skip_test:
            final = f"{cfg.OUTPUT_DIR}/model_final.pth"
            watch.answer = nothing_to_save(f"in testing: {final} is saved; test it with --resume", EXIT_SAVED)
            outcomes = evaluate(cfg, model)
            if distributed.is_main():
                store_thresholds(final, outcomes[cfg.DATASETS.TEST[0]]["thresholds"])


if __name__ == "__main__":
    run_tool(main)
