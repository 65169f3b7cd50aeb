"""Write a trained model as a file that needs no torch.

python tools/export_model.py --config-file F --weights W --output model.onnx
python tools/export_model.py --config-file F --weights W --output model.xml --precision int8 --images parts/
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool
from engine.export.deformable import DEFORMABLE_FORMS
from engine.export.precision import PRECISIONS, SUFFIXES, check_precision, format_of
from engine.files import expanded, user_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Write a trained model as a file that needs no torch.")
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument("--weights", required=True, type=expanded, metavar="W", help="checkpoint")
    endings = ", ".join(f"{ending} ({name})" for name, all_endings in SUFFIXES.items() for ending in all_endings)
    parser.add_argument("--output", required=True, type=user_path, metavar="M", help=f"file to write: {endings}")
    parser.add_argument("--format", choices=SUFFIXES, default="", help="by default the ending of --output tells")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the weights and of the computation")
    parser.add_argument("--dynamic", action="store_true", help="number and sizes of images are free (the default)")
    sides = {"type": int, "nargs": 2, "metavar": ("H", "W")}
    parser.add_argument("--input-size", **sides, help="fixed height and width of what the network takes")
    parser.add_argument("--image-size", **sides, help="of all images, such as a camera's: the network scales them")
    parser.add_argument("--batch", type=int, metavar="N", help="fixed number of images at once")
    parser.add_argument("--images", type=user_path, metavar="DIR", help="real images for int8 and for the trial")
    parser.add_argument("--max-drop", type=float, metavar="X", help="loss of AP from which on the file is refused")
    parser.add_argument("--keep-float", nargs="+", default=[], metavar="MODULE", help="not int8, such as rpn.head")
    parser.add_argument(
        "--deformable", choices=DEFORMABLE_FORMS, default="auto", help="how deformable convolutions are written"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    return parser.parse_args()


def check(args: argparse.Namespace) -> None:
    """Raise an `InputError` for arguments that exclude each other or are out of range."""
    fixed = {"--input-size": args.input_size, "--image-size": args.image_size, "--batch": [args.batch or 1]}
    for name, values in fixed.items():
        if values and min(values) < 1 or (name == "--batch" and args.batch == 0):
            raise InputError(f"{name}: numbers must be at least 1")
    if args.dynamic and (args.input_size or args.image_size or args.batch):
        raise InputError("--dynamic leaves open what --input-size, --image-size and --batch fix; remove one of the two")
    if args.input_size and args.image_size:
        raise InputError("--input-size and --image-size exclude each other: with the latter the network scales images")
    if args.max_drop is not None and not 0 <= args.max_drop <= 1:
        raise InputError(f"--max-drop must be between 0 and 1, not {args.max_drop:g}")
    if args.images and not args.images.is_dir():
        raise InputError(f"--images {args.images}: there is no such folder")
    check_precision(format_of(args.output, args.format), args.precision)


def main() -> None:
    args = parse_args()
    check(args)
    from engine.config import load_config

    cfg = load_config(args.config_file, args.opts)  # reports mistakes before torch is imported

    from engine import export
    from engine.log import setup_logging
    from engine.runtime.card import FixedShape

    setup_logging()
    sides = (tuple(each) if each else None for each in (args.input_size, args.image_size))
    shape = FixedShape(args.batch, *sides)
    calls = {"images": args.images, "max_drop": args.max_drop, "kept": args.keep_float, "deformable": args.deformable}
    export(cfg, args.weights, args.output, args.format, args.precision, shape, **calls)


if __name__ == "__main__":
    run_tool(main)
