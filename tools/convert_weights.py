"""Convert weights of another project into a checkpoint of this engine, and report their content.

python tools/convert_weights.py retinanet_R_50_FPN_1x.pkl weights/retinanet.pth --config-file F MODEL.DEVICE cpu

The conventions that the weights were trained with (pixels, anchors, deltas, normalisation of the input) are stored in
the file and applied by test_net.py, the demo and Predictor.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import expanded, user_path

# As in engine.checkpoint.foreign.FORMATS, which would import torch.
FORMATS = (
    *("auto", "mmdetection", "detectron2", "torchvision", "torchvision_features", "timm", "efficientnet_lite", "atss"),
    *("caffe2", "plain"),
)


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Convert weights of another project into a checkpoint of this engine.",
        usage="%(prog)s IN OUT [--from FORMAT] [--class-names NAME [NAME ...] | --class-names-from A]\n"
        "       [--imports MODULE [MODULE ...]] [--config-file F [KEY VALUE ...]]",
    )
    parser.add_argument("source", metavar="IN", type=expanded, help="weights: a file, a URL or catalog://...")
    parser.add_argument("output", metavar="OUT", type=user_path, help="checkpoint to write")
    parser.add_argument(
        "--from", dest="format", default="auto", metavar="FORMAT", help=f"format of IN: {', '.join(FORMATS)} (auto)"
    )
    parser.add_argument("--imports", nargs="+", default=[], metavar="MODULE", help="modules that register your formats")
    parser.add_argument(
        "--config-file",
        type=user_path,
        metavar="F",
        help="also load the weights into the model of this YAML configuration, with overrides KEY VALUE",
    )
    names = parser.add_mutually_exclusive_group()
    names.add_argument("--class-names", nargs="+", metavar="NAME", help="class names in the order of the labels")
    names.add_argument(
        "--class-names-from",
        metavar="A",
        type=user_path,
        help="COCO annotation file with the classes as categories, ordered by id",
    )
    args, args.opts = parser.parse_known_args(arguments)  # KEY VALUE pairs follow options, separately from IN and OUT
    unknown = [word for word in args.opts if word.startswith("--")] if args.config_file else args.opts
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def class_names(args: argparse.Namespace) -> list[str]:
    """The class names given, or those of the annotation file in the order of their ids."""
    if not args.class_names_from:
        return args.class_names or []
    from engine.data.formats import coco

    return coco.class_names(coco.load(args.class_names_from), args.class_names_from)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.config import load_config

    cfg = load_config(args.config_file, args.opts) if args.config_file else None
    names = class_names(args)

    from engine.assembly.weights import follow_conventions
    from engine.checkpoint import load_weights, read_weights, save
    from engine.checkpoint.convert import checkpoint_of, summary, with_class_names
    from engine.checkpoint.foreign import FORMATS as registered
    from engine.log import setup_logging
    from engine.registry import import_modules, lookup

    setup_logging()
    import_modules([*args.imports, *(cfg.IMPORTS if cfg is not None else ())])
    if args.format != "auto":
        lookup(registered, args.format, "--from")
    file = read_weights(args.source, args.format)
    if file.format == "engine" and args.format != "auto":
        print(f"{args.source}: is a checkpoint of this engine, so --from {args.format} does not apply")
    if names:
        file = with_class_names(file, names)
    print(summary(file))
    if cfg is not None:
        from engine.assembly.model import build_model, class_count
        from engine.errors import InputError

        key, count = class_count(cfg)
        if not (count or file.class_names):
            raise InputError(
                f"{args.source} does not name its classes and {key} is 0; name them with --class-names, or add {key} N "
                "to the command line, with N their number + 1"
            )
        follow_conventions(cfg, file)
        report = load_weights(build_model(cfg, file.class_names or ()), file)
        print(report.table())
    save(args.output, checkpoint_of(file))
    print(f"written to {args.output}")


if __name__ == "__main__":
    run_tool(main)
