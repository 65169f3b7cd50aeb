"""Write augmented images of a data set as a new COCO set.

python tools/augment_dataset.py --config-file F --output DIR
python tools/augment_dataset.py --config-file F --output DIR --copies 4 --with-originals
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import refuse_existing, user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Write images of a data set, changed by the steps of INPUT.AUGMENTATIONS, as a new COCO set with "
        "new names and ids. The folder appears when it is complete."
    )
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument("--output", required=True, type=user_path, metavar="DIR", help="the new folder")
    parser.add_argument(
        "--dataset", metavar="NAME", action="append", default=[], help="the data set (all of DATASETS.TRAIN)"
    )
    parser.add_argument("--copies", metavar="N", type=int, default=1, help="new images for each one (1)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn (0)")
    parser.add_argument("--with-originals", action="store_true", help="the original images as well")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args(arguments)
    if args.copies < 1 or args.seed < 0:
        parser.error("--copies must be positive, and --seed must not be negative")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.config import load_config

    cfg = load_config(args.config_file, args.opts)
    refuse_existing(args.output)  # before the data are read

    from tqdm import tqdm

    from engine.assembly.augmented_set import augment_dataset
    from engine.data.augmented import ANNOTATION_FILE, IMAGE_FOLDER, LEVELS_OF_16_BITS
    from engine.log import get_logger, setup_logging

    setup_logging()
    bar = partial(tqdm, desc="images", disable=None)
    made = augment_dataset(cfg, args.output, args.dataset, args.copies, args.seed, args.with_originals, bar)
    for line in made.skipped:
        get_logger("tools").warning("skipped: %s", line)
    boxes = made.content["annotations"]
    num_ignored, num_images = sum(box["iscrowd"] for box in boxes), len(made.content["images"])
    print(f"{num_images} images with {len(boxes) - num_ignored} boxes written, and {num_ignored} ignore regions")
    folder = args.output.absolute()
    entry = {"img_dir": str(folder / IMAGE_FOLDER), "ann_file": str(folder / ANNOTATION_FILE)}
    print(f"DATASETS.CATALOG: {{augmented: {{img_dir: {entry['img_dir']}, ann_file: {entry['ann_file']}}}}}")
    if made.is_deep:
        print(f"its images have 16 bits: INPUT.VALUE_RANGE: (0, {LEVELS_OF_16_BITS})")


if __name__ == "__main__":
    run_tool(main)
