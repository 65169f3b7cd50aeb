"""Draw the detections of a model on images.

python demo/atss_demo.py --config-file F --weights W --images-dir D --output-dir O
python demo/atss_demo.py --config-file F --weights W --images-dir "parts/*.png" more/parts a.tif --recursive
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import expanded, user_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw the detections of a model on images.")
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument("--weights", required=True, type=expanded, metavar="W", help="checkpoint")
    parser.add_argument(
        "--images-dir",
        required=True,
        metavar="D",
        type=expanded,
        nargs="+",
        action="extend",
        help='folders, files or patterns ("parts/*.png") of images, one or more',
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


def places_and_opts(words: list[str], opts: list[str]) -> tuple[list[str], list[str]]:
    """The words after --images-dir without the KEY VALUE pairs that may follow them, and all KEY VALUE pairs."""
    from engine.config import get_cfg

    keys = set(get_cfg())
    is_key = [word.split(".")[0] in keys and not Path(word).exists() for word in words]
    end = is_key.index(True, 1) if True in is_key[1:] else len(words)
    return words[:end], [*words[end:], *opts]


def main() -> None:
    args = parse_args()
    from engine.config import load_config

    places, opts = places_and_opts(args.images_dir, args.opts)
    size = ["INPUT.MIN_SIZE_TEST", str(args.min_image_size)] if args.min_image_size is not None else []
    cfg = load_config(args.config_file, [*size, *opts])  # reports mistakes before torch is imported

    from engine import Predictor
    from engine.data.find_images import find_images
    from engine.inference.folder import draw_images
    from engine.log import setup_logging

    setup_logging()
    images = find_images(places, args.recursive, skip=args.output_dir)
    predictor = Predictor(cfg, args.weights, args.threshold)
    draw_images(predictor, images, args.output_dir, args.show)


if __name__ == "__main__":
    run_tool(main)
