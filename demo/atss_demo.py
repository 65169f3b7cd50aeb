"""Draw the detections of a model on images, videos or what a camera shows.

python demo/atss_demo.py --config-file F --weights W --images-dir D --output-dir O
python demo/atss_demo.py --config-file F --weights W --images-dir "parts/*.png" more/parts a.tif --recursive
python demo/atss_demo.py --config-file F --weights W --images-dir 0 --show
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import expanded, user_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config-file", type=user_path, metavar="F", help="YAML configuration; optional with an exported file"
    )
    parser.add_argument("--weights", required=True, type=expanded, metavar="W", help="checkpoint or exported file")
    parser.add_argument(
        "--images-dir",
        required=True,
        metavar="D",
        type=expanded,
        nargs="+",
        action="extend",
        help='folders, files or patterns ("parts/*.png") of images and videos, lists (.txt), a camera (0) or stream',
    )
    parser.add_argument("--recursive", action="store_true", help="take the sub-folders of the folders too")
    parser.add_argument(
        "--output-dir",
        metavar="O",
        type=user_path,
        default=Path("outputs/demo"),
        help="folder for the pictures (outputs/demo)",
    )
    parser.add_argument(
        "--min-image-size", type=int, metavar="N", help="short side to resize to, in pixels (INPUT.MIN_SIZE_TEST)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="one score threshold for all classes instead of those of the checkpoint",
    )
    parser.add_argument("--show", action="store_true", help="also show each picture in a window")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from engine.assembly.run_config import run_config
    from engine.config import split_overrides

    places, opts = split_overrides(args.images_dir, args.opts)
    size = ["INPUT.MIN_SIZE_TEST", str(args.min_image_size)] if args.min_image_size is not None else []
    cfg = run_config(args.config_file, args.weights, [*size, *opts])  # reports mistakes before torch is imported

    from engine.inference.items import find_items

    found = find_items(places, args.recursive, skip=args.output_dir)

    from engine import Predictor
    from engine.inference.drawing import draw_items
    from engine.log import setup_logging

    setup_logging()
    draw_items(Predictor(cfg, args.weights, args.threshold), found, args.output_dir, args.show)


if __name__ == "__main__":
    run_tool(main)
