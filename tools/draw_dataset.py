"""Draw images of a data set with their ground truth, and next to it the detections of a results file.

python tools/draw_dataset.py --config-file F
python tools/draw_dataset.py --config-file F --results outputs/mine/inference/my_val/bbox.json
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool, shown
from engine.files import user_path

MAX_ON_SHEET = 200


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw images of a data set with their ground truth, and next to it the detections of a results "
        "file. Writes each picture, and one picture with all of them."
    )
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument(
        "--dataset", metavar="NAME", help="the data set (first of DATASETS.TRAIN; with --results of DATASETS.TEST)"
    )
    parser.add_argument(
        "--results", metavar="R", type=user_path, help="COCO results to compare with, such as bbox.json"
    )
    parser.add_argument(
        "--threshold", metavar="T", type=float, default=0.3, help="draw detections with at least this score (0.3)"
    )
    parser.add_argument(
        "--output-dir",
        metavar="O",
        type=user_path,
        default=Path("outputs/pictures"),
        help="folder for the pictures (%(default)s)",
    )
    parser.add_argument("--num-images", metavar="N", type=int, default=16, help="draw N random images (16); 0: all")
    parser.add_argument("--seed", type=int, default=0, help="for the choice of images (0)")
    parser.add_argument("--columns", metavar="C", type=int, help="columns of the picture with all of them (4 or 2)")
    parser.add_argument("--hide-labels", action="store_true", help="draw boxes without class names and scores")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args(arguments)
    if args.num_images < 0 or args.seed < 0:
        parser.error("--num-images and --seed must not be negative")
    if args.columns is not None and args.columns < 1:
        parser.error("--columns must be positive")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.config import load_config

    cfg = load_config(args.config_file, args.opts)
    key, names = ("DATASETS.TEST", cfg.DATASETS.TEST) if args.results else ("DATASETS.TRAIN", cfg.DATASETS.TRAIN)
    if not (args.dataset or names):
        raise InputError(f"{args.config_file}: {key} is empty; name a data set (--dataset)")

    from engine.analysis.anchor_boxes import choose_images
    from engine.analysis.dataset_pictures import pictures
    from engine.assembly.data import build_dataset, measure_value_range
    from engine.data.image_file import picture_name, write_image
    from engine.evaluation import read_results
    from engine.log import setup_logging
    from engine.visualize import mosaic

    setup_logging()
    dataset = build_dataset(cfg, args.dataset or names[0])
    measure_value_range(dataset)
    results = read_results(args.results, dataset.annotations, dataset.merged_ids) if args.results else None
    indices = sorted(choose_images(len(dataset), args.num_images, args.seed))
    folder = args.output_dir / dataset.name
    images_in = {dataset.image_path(index).parent for index in range(len(dataset))}
    if {os.path.realpath(each) for each in images_in} & {os.path.realpath(folder), os.path.realpath(args.output_dir)}:
        raise InputError(f"{args.output_dir}: pictures would stand among the images; name another --output-dir")
    cells, num_drawn, width = [], 0, 960 if args.results else 480
    for index, (name, picture) in enumerate(pictures(dataset, indices, results, args.threshold, not args.hide_labels)):
        write_image(folder / f"{index:03d}_{picture_name(Path(name), picture.shape[:2])}", picture)
        num_drawn += 1
        if num_drawn <= MAX_ON_SHEET:  # all of a large data set would not fit into memory
            cells.append(mosaic([picture], columns=1, cell_width=width, gap=0))
    if not cells:
        raise InputError(f"data set {shown(dataset.name)}: none of {len(indices)} images can be read")
    sheet = args.output_dir / f"{dataset.name}.png"
    write_image(sheet, mosaic(cells, args.columns or (2 if args.results else 4), width))
    print(f"{num_drawn} of {len(dataset)} images of {dataset.name} drawn into {folder}")
    print(f"{'all of them' if num_drawn == len(cells) else f'the first {len(cells)}'}: {sheet}")


if __name__ == "__main__":
    run_tool(main)
