"""Split annotations into COCO files for training, validation and testing.

python tools/split_dataset.py parts.json splits --ratio 0.8 0.2 --stratify
python tools/split_dataset.py VOC/Annotations splits --images VOC/JPEGImages --every 5
python tools/split_dataset.py parts.json splits --folds 5 --group "^(.*)_copy"

Ids stay as they are. Each image is in exactly one split (of each fold).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import user_path

NAMES = ("train", "val", "test")
_MOST = 1e100  # so that their sum is a number


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Split annotations into COCO files for training, validation, testing.")
    parser.add_argument("source", metavar="IN", type=user_path, help="annotations in any format: a file or a folder")
    parser.add_argument("output", metavar="OUT", type=user_path, help="new folder for train.json, val.json, ...")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--ratio", nargs="+", type=float, metavar="R", help="shares of the images, such as 0.8 0.2")
    way.add_argument("--folds", type=int, metavar="K", help="K splits, each the validation set of one fold")
    way.add_argument("--every", type=int, metavar="N", help="every N-th image, by name, is for validation")
    parser.add_argument(
        "--names", nargs="+", default=NAMES, metavar="NAME", help="names of the splits (train val test)"
    )
    parser.add_argument("--stratify", action="store_true", help="give each split its share of the boxes of each class")
    parser.add_argument(
        "--group",
        default="",
        metavar="REGEX",
        help="images whose names agree in the first group of this pattern stay together",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of all chance (0)")
    parser.add_argument("--images", metavar="DIR", type=user_path, help="folder of the images; gives their sizes")
    parser.add_argument("--from", dest="source_format", default="", metavar="FORMAT", help="format of IN (recognised)")
    args = parser.parse_args(arguments)
    if args.ratio and not (len(args.ratio) > 1 and all(0 < each < _MOST for each in args.ratio)):
        parser.error("--ratio needs two or more positive numbers, with blanks between them")
    if any(number is not None and number < 2 for number in (args.folds, args.every)):
        parser.error("--folds and --every need 2 or more")
    if args.every and args.stratify:
        parser.error("--every takes images by their names; --stratify needs --ratio or --folds")
    if len(set(args.names)) < len(args.names) or not all(name and name == Path(name).name for name in args.names):
        parser.error("--names must be different names of files")
    num_splits = len(args.ratio) if args.ratio else 2
    if len(args.names) < num_splits:
        parser.error(f"there are {num_splits} splits; give as many --names")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.data import splits
    from engine.data.formats import coco
    from engine.data.formats.conversion import coco_of
    from engine.errors import InputError
    from engine.files import new_folder
    from engine.log import setup_logging

    setup_logging()
    data = coco_of(args.source, args.images, args.source_format)
    counts, ignored = splits.box_counts(data)
    units = splits.units_of([row["file_name"] for row in data["images"]], args.group)
    if len(units) < (args.folds or args.every or len(args.ratio)):
        raise InputError(f"{args.source}: has {len(units)} images (or groups of them), too few to split")
    by_class = counts if args.stratify else None
    if args.folds:
        part = splits.assign(units, [1] * args.folds, args.seed, by_class)
        found = {f"fold{k}": (part == k).astype(int) for k in range(args.folds)}
    elif args.every:
        found = {"": splits.every_nth(units, args.every)}
    else:
        found = {"": splits.assign(units, args.ratio, args.seed, by_class)}
    num_splits = len(args.ratio) if args.ratio else 2
    for split in found.values():
        if empty := [name for number, name in enumerate(args.names[:num_splits]) if not (split == number).any()]:
            raise InputError(
                f"{args.source}: {empty[0]} would get none of its {len(split)} images; give it a larger share"
            )
    names = [str(row["name"]) for row in data["categories"]]
    with new_folder(args.output) as folder:
        for fold, split in found.items():
            used = args.names[:num_splits]
            for number, name in enumerate(used):
                coco.save(splits.split_coco(data, split, number), folder / f"{fold}{'_' * bool(fold)}{name}.json")
            print(splits.counts_table(used, split, counts, ignored, names, fold))
            for line in splits.missing_classes(used, split, counts, names, fold):
                print(line)
    print(f"written to {args.output}")


if __name__ == "__main__":
    run_tool(main)
