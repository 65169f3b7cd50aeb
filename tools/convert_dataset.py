"""Convert annotations from one format to another.

python tools/convert_dataset.py VOC/Annotations parts.json --to coco --images VOC/JPEGImages
python tools/convert_dataset.py parts.json parts_yolo --to yolo --images VOC/JPEGImages --link

Boxes come back to the last bit when they are converted back. What the target cannot hold is said with a count.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import user_path

# As in engine.data.formats, which would import more.
NAMES = ("coco", "voc", "yolo", "txt", "csv", "labelme", "competition")


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Convert annotations from one format to another.")
    parser.add_argument("source", metavar="IN", type=user_path, help="annotations: a file, or a folder of files")
    parser.add_argument(
        "output", metavar="OUT", type=user_path, help="new folder, or new file (.json, .csv) for coco, competition, csv"
    )
    parser.add_argument("--to", required=True, metavar="FORMAT", help=f"format of OUT: {', '.join(NAMES)}")
    parser.add_argument("--from", dest="source_format", default="", metavar="FORMAT", help="format of IN (recognised)")
    parser.add_argument("--images", metavar="DIR", type=user_path, help="folder of the images; gives their sizes")
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help="classes in their order: names with commas between them, or a file with a name on each line",
    )
    parser.add_argument(
        "--unlisted-are-empty",
        action="store_true",
        help="images in DIR that IN does not name are images without boxes; by default they are left out",
    )
    images = parser.add_mutually_exclusive_group()
    images.add_argument(
        "--copy", dest="transfer", action="store_const", const="copy", default="", help="copy the images"
    )
    images.add_argument("--link", dest="transfer", action="store_const", const="link", help="link to the images")
    parser.add_argument("--imports", nargs="+", default=[], metavar="MODULE", help="modules that register your formats")
    args = parser.parse_args(arguments)
    if args.transfer and args.images is None:
        parser.error(f"--{args.transfer} needs --images DIR")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.data.formats import FORMATS
    from engine.data.formats.class_list import read_class_list
    from engine.data.formats.conversion import check_is_folder, convert, of_names, with_classes
    from engine.data.formats.recognise import read_annotations, recognise
    from engine.log import setup_logging
    from engine.registry import import_modules, lookup

    setup_logging()
    import_modules(args.imports)
    if args.source_format:
        lookup(FORMATS, args.source_format, "--from")
    if args.images is not None:
        check_is_folder(args.images)
    source_format = args.source_format or recognise(args.source)
    table = read_annotations(args.source, args.images, source_format, args.unlisted_are_empty)
    if args.classes is not None:
        is_file = Path(args.classes).is_file()
        table = with_classes(table, read_class_list(user_path(args.classes)) if is_file else of_names(args.classes))
    done = convert(table, args.output, args.to, args.images, args.transfer)
    counts = f"{len(table.image_ids)} images, {len(table.crowd)} boxes, {len(table.category_names)} classes"
    print(f"{args.source}: {source_format}, {counts}")
    for line in done.differences:
        print(f"in {args.to}: {line}")
    img_dir = done.img_dir if done.img_dir is not None else "FOLDER"
    print(f"written; in DATASETS.CATALOG: NAME: {{img_dir: {img_dir}, ann_file: {done.ann_file}, format: {args.to}}}")


if __name__ == "__main__":
    run_tool(main)
