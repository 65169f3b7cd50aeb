"""Average the weights of several checkpoints of one model.

python tools/average_checkpoints.py OUT IN IN IN --weights 1 2 3
python tools/average_checkpoints.py OUT --last 5 --dir outputs/mine --recompute-bn --config-file F
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool
from engine.files import expanded, user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        usage="%(prog)s OUT (IN [IN ...] | --last N --dir RUN) [--weights X [X ...]]\n"
        "       [--recompute-bn --config-file F [--images N] [KEY VALUE ...]]",
    )
    parser.add_argument("output", metavar="OUT", type=user_path, help="checkpoint to write; must not exist yet")
    parser.add_argument("inputs", metavar="IN", type=expanded, nargs="*", help="checkpoints of this engine")
    parser.add_argument("--weights", metavar="X", type=float, nargs="+", help="one per IN (all equal by default)")
    parser.add_argument("--last", metavar="N", type=int, help="instead of IN: the N newest checkpoints in --dir")
    parser.add_argument("--dir", metavar="RUN", type=user_path, help="OUTPUT_DIR of a training run, for --last")
    parser.add_argument(
        "--recompute-bn",
        action="store_true",
        help="recompute the batch norm statistics of the averaged weights on training images",
    )
    parser.add_argument("--config-file", type=user_path, metavar="F", help="YAML configuration, for --recompute-bn")
    parser.add_argument(
        "--images", metavar="N", type=int, default=1000, help="number of training images for --recompute-bn (1000)"
    )
    args, args.opts = parser.parse_known_args(arguments)  # KEY VALUE pairs follow options, separately from IN
    if args.last is not None:  # there is no IN, but Python 3.12.7 and later take the first pairs as IN
        args.opts, args.inputs = [*args.inputs, *args.opts], []
    if unknown := [word for word in args.opts if word.startswith("--")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if bool(args.inputs) == (args.last is not None) or (args.last is None) != (args.dir is None):
        parser.error("give the checkpoints, or --last N and --dir RUN")
    if args.recompute_bn != bool(args.config_file):
        parser.error("--recompute-bn and --config-file must be used together")
    if args.opts and not args.config_file:
        parser.error(f"unrecognized arguments: {' '.join(args.opts)}")
    if args.images < 1 or (args.last is not None and args.last < 1):
        parser.error("--images and --last must be positive")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    if args.output.exists():
        raise InputError(
            f"{args.output}: exists already; OUT, the file to write, comes first: choose another name, or delete it"
        )
    if args.config_file:
        from engine.config import load_config

        cfg = load_config(args.config_file, args.opts)

    from engine.checkpoint import save
    from engine.checkpoint.average import average, newest
    from engine.log import setup_logging

    setup_logging()
    paths = list(map(Path, args.inputs)) or newest(args.dir, args.last)
    state = average(paths, args.weights)
    for path, weight in zip(paths, args.weights or [1.0] * len(paths), strict=True):
        print(f"{weight:g} x {path}")
    if args.recompute_bn:
        from engine.assembly.weights import with_batch_norm_recomputed

        state = with_batch_norm_recomputed(cfg, state, args.images)
        print(f"batch norm statistics: recomputed on {args.images} training images")
    save(args.output, state)
    print(
        f"written to {args.output} without score thresholds, since those of the inputs do not hold for it; find them:"
    )
    print(f"tools/test_net.py --config-file F --write-thresholds MODEL.WEIGHT {args.output}")


if __name__ == "__main__":
    run_tool(main)
