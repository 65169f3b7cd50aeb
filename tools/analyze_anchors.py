"""Show sizes and ratios of the training boxes, how well the anchors of a configuration fit, and better ones.

python tools/analyze_anchors.py --config-file F --output-dir outputs/anchors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument("--output-dir", metavar="O", type=user_path, help="folder for anchors.png (OUTPUT_DIR)")
    parser.add_argument("--max-images", metavar="N", type=int, default=2000, help="use N random images (2000); 0: all")
    parser.add_argument(
        "--num-ratios", metavar="R", type=int, help="number of ratios to suggest (as many as configured)"
    )
    parser.add_argument("--seed", type=int, default=0, help="for the choice of images and the clusters (0)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    args = parser.parse_args(arguments)
    if args.max_images < 0 or args.seed < 0:
        parser.error("--max-images and --seed must not be negative")
    if args.num_ratios is not None and args.num_ratios < 1:
        parser.error("--num-ratios must be positive")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.config import load_config

    cfg = load_config(args.config_file, ["MODEL.DEVICE", "cpu", *args.opts])

    from engine.assembly.analysis import analyze_anchors
    from engine.data.image_file import write_image

    text, plot = analyze_anchors(cfg, args.max_images, args.num_ratios, args.seed)
    print(text)
    output = (args.output_dir or Path(cfg.OUTPUT_DIR)) / "anchors.png"
    write_image(output, plot)
    print(f"\nplot: {output}")


if __name__ == "__main__":
    run_tool(main)
