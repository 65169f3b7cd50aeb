"""Detect in very many images on a Ray cluster, or with several processes here; writes Parquet and JSON lines.

python tools/predict_ray.py --config-file F --weights W --images images/ --output-dir O --workers 4
python tools/predict_ray.py ... --address auto --workers 16 --gpus 1
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool
from engine.files import expanded, refuse_existing, user_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--config-file", type=user_path, metavar="F", help="YAML configuration; optional with an exported file")
    add("--weights", required=True, type=expanded, metavar="W", help="checkpoint or exported file")
    add(
        "--images",
        required=True,
        type=expanded,
        nargs="+",
        action="extend",
        metavar="D",
        help="folders, files, patterns or lists (.txt) of images, one or more; all machines see them under these names",
    )
    add("--recursive", action="store_true", help="take the sub-folders of the folders too")
    add("--output-dir", required=True, type=user_path, metavar="O", help="new folder, which all machines can write to")
    add("--address", default="", metavar="A", help="of a running cluster; auto: that of this machine (starts one here)")
    add("--workers", type=int, default=2, metavar="N", help="processes that each hold a model (2)")
    add("--cpus", type=int, default=0, metavar="N", help="that each of them computes with (its share; on a cluster 1)")
    add("--gpus", type=float, default=0.0, metavar="N", help="of each of them, such as 1 or 0.5 (0: MODEL.DEVICE cpu)")
    add("--score-thr", type=float, metavar="T", help="one score threshold for all classes instead of the stored ones")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args()
    if args.workers < 1 or args.cpus < 0 or args.gpus < 0:
        parser.error("--workers must be positive, --cpus and --gpus not negative")
    return args


def main() -> None:
    args = parse_args()
    from engine.assembly.run_config import run_config
    from engine.config import split_overrides

    places, opts = split_overrides(args.images, args.opts)
    device = ["MODEL.DEVICE", "cuda" if args.gpus else "cpu"]
    cfg = run_config(args.config_file, args.weights, [*device, *opts])  # reports mistakes before torch is imported
    refuse_existing(args.output_dir)
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed: pip install 'engine[ray]'")

    from engine.assembly.predicting import predict_on_ray
    from engine.data.find_images import find_images
    from engine.inference.ray_pipeline import Cluster
    from engine.log import setup_logging

    setup_logging()
    images = find_images(places, args.recursive, with_lists=True)
    cluster = Cluster(args.address, args.workers, args.cpus, args.gpus)
    predict_on_ray(cfg, args.weights, images, args.output_dir, cluster, args.score_thr)


if __name__ == "__main__":
    run_tool(main)
