"""Detect in images, videos, cameras and streams; a killed run goes on where it was.

python tools/predict.py --config-file F --weights W --input parts/ "more/*.png" clip.mp4 --output-dir O
python tools/predict.py --config-file F --weights W --input rtsp://line-3/cam --output-dir O --save video,csv
python tools/predict.py --config-file F --weights W --input incoming/ --watch --output-dir O
torchrun --nproc-per-node=4 tools/predict.py --config-file F --weights W --input all.txt --output-dir O --shards
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool
from engine.files import expanded, user_path

SAVES = """outputs beside predictions.jsonl, separated by commas: pictures, video, page (thumbnails), csv, crops, jsonl
(nothing else); without it, pictures of images and videos of videos"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--config-file", type=user_path, metavar="F", help="YAML configuration; optional with an exported file")
    add("--weights", required=True, type=expanded, metavar="W", help="checkpoint or exported file")
    add(
        "--input",
        required=True,
        type=expanded,
        nargs="+",
        action="extend",
        metavar="X",
        help="files, folders, patterns, lists (.txt) of images and videos; a camera (0) or stream (rtsp://...)",
    )
    add("--output-dir", type=user_path, default=Path("outputs/predict"), metavar="O", help="folder (%(default)s)")
    add("--save", metavar="WORDS", help=SAVES)
    add("--show", action="store_true", help="also show each picture in a window")
    add("--recursive", action="store_true", help="take the sub-folders of the folders too")
    add("--watch", action="store_true", help="the input is a folder; take images as they come into it")
    add("--timeout", type=float, metavar="S", help="seconds without a new frame (60) or image (no limit); 0: no limit")
    add("--resume", action="store_true", help="go on with the run in the output folder")
    add("--overwrite", action="store_true", help="replace the run in the output folder")
    add("--shards", action="store_true", help="with torchrun: each process takes its part of the input")
    add("--shard", metavar="I/N", help="this process takes part I of N of the input, such as 1/4")
    add("--device", metavar="D", help="cpu, cuda or cuda:N (MODEL.DEVICE)")
    add("--score-thr", type=float, metavar="T", help="one score threshold for all classes instead of the stored ones")
    add("--batch-size", type=int, metavar="N", help="images that go through the model at once (TEST.IMS_PER_BATCH)")
    add("--min-image-size", type=int, metavar="N", help="short side to resize to, in pixels (INPUT.MIN_SIZE_TEST)")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args()
    if args.resume and args.overwrite:
        parser.error("--resume goes on with a run and --overwrite replaces it; give one of them")
    if args.timeout is not None and not args.timeout >= 0:
        parser.error("--timeout must not be negative")
    return args


def shard_words(args: argparse.Namespace) -> str:
    """ "I/N" of this process.

    Raises:
        InputError: torchrun has started several processes, and it was not said that they share the input.
    """
    if args.shard and args.shards:
        raise InputError("--shards is for torchrun and --shard for processes that you start yourself; give one of them")
    if args.shards:
        return f"{int(os.environ.get('RANK', 0)) + 1}/{os.environ.get('WORLD_SIZE', 1)}"
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError("torchrun has started several processes, which would do the same: add --shards")
    return args.shard or "1/1"


def main() -> None:
    args = parse_args()
    from engine.assembly.run_config import run_config
    from engine.config import split_overrides

    places, opts = split_overrides(args.input, args.opts)
    keys = {
        "MODEL.DEVICE": args.device,
        "TEST.IMS_PER_BATCH": args.batch_size,
        "INPUT.MIN_SIZE_TEST": args.min_image_size,
    }
    given = [str(word) for key, value in keys.items() if value is not None for word in (key, value)]
    cfg = run_config(args.config_file, args.weights, [*given, *opts])  # reports mistakes before torch is imported

    from engine.inference.items import find_items
    from engine.inference.run_folder import Shard
    from engine.inference.sinks.chosen import check_saves
    from engine.inference.watch import watched_folder

    saves = tuple(args.save.split(",")) if args.save else None
    check_saves(saves or ())
    shard = Shard.parse(shard_words(args))
    if args.watch and shard.count > 1:
        raise InputError("--watch is for one process; a folder that is watched has no parts")
    if args.watch:
        inputs = watched_folder(places, args.recursive, args.output_dir, args.timeout or 0.0)
    else:
        inputs = find_items(places, args.recursive, skip=args.output_dir)

    from engine.assembly.predicting import PredictOptions, predict
    from engine.log import setup_logging
    from engine.signals import SignalWatch, nothing_to_save

    setup_logging(rank=shard.index if args.shards else 0)
    options = PredictOptions(
        args.output_dir,
        saves,
        args.score_thr,
        args.show,
        args.resume,
        args.overwrite,
        shard,
        args.timeout,
    )
    with SignalWatch(nothing_to_save("before the first image: nothing was changed")):
        predict(cfg, args.weights, inputs, options)


if __name__ == "__main__":
    run_tool(main)
