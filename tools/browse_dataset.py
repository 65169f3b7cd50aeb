"""Show what the network sees in training: images after augmentation, with boxes and ignore regions.

python tools/browse_dataset.py --config-file F
python tools/browse_dataset.py --config-file outputs/mine/config.yaml --iteration 500 --num-images 64
"""

from __future__ import annotations

import argparse
import sys
from itertools import count, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool
from engine.files import user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Show what the network sees in training: the images of a run from an iteration on, after tiling, "
        "augmentation and resizing, with boxes and ignore regions. Writes pages of pictures. The config.yaml of a run "
        "has its seed, so that these are the very images of that run."
    )
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument(
        "--output-dir",
        metavar="O",
        type=user_path,
        default=Path("outputs/browse"),
        help="folder for the pages (%(default)s)",
    )
    parser.add_argument("--iteration", metavar="K", type=int, default=0, help="begin with iteration K (0)")
    parser.add_argument("--num-images", metavar="N", type=int, default=16, help="show N images (16)")
    parser.add_argument("--per-page", metavar="N", type=int, default=16, help="pictures of a page (16)")
    parser.add_argument("--columns", metavar="C", type=int, default=4, help="columns of a page (4)")
    parser.add_argument("--hide-labels", action="store_true", help="draw boxes without class names")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args(arguments)
    if args.iteration < 0:
        parser.error("--iteration must not be negative")
    if min(args.num_images, args.per_page, args.columns) < 1:
        parser.error("--num-images, --per-page and --columns must be positive")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.config import load_config

    cfg = load_config(args.config_file, args.opts)

    from engine.assembly.analysis import browse_training
    from engine.data.image_file import write_image
    from engine.log import setup_logging
    from engine.visualize import mosaic

    setup_logging()
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise InputError(f"{args.output_dir}: is a file; name a folder for the pages")
    pictures = browse_training(cfg, args.iteration, args.num_images, not args.hide_labels)
    num_shown = 0
    for number in count(1):
        page = list(islice(pictures, args.per_page))
        if not page:
            break
        sheet = args.output_dir / f"page_{number:03d}_iterations_{page[0][0]}_to_{page[-1][0]}.png"
        write_image(sheet, mosaic([picture for _, picture in page], args.columns))
        num_shown += len(page)
    print(f"{num_shown} images, from iteration {args.iteration} on, drawn into {args.output_dir}")


if __name__ == "__main__":
    run_tool(main)
