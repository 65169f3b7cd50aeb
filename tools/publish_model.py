"""Strip a checkpoint to what is needed to use the model, and add its hash to the file name.

python tools/publish_model.py outputs/mine/model_final.pth published/mine.pth --safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import expanded, sha256, user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=f"{(__doc__ or '').splitlines()[0]} Keeps weights, class names, score thresholds, configuration "
        "and conventions; drops the optimizer and other training state."
    )
    parser.add_argument("source", metavar="IN", type=user_path, help="checkpoint of this engine")
    parser.add_argument(
        "output",
        type=expanded,
        metavar="OUT",
        help="model.pth gives model-1a2b3c4d.pth, with the first digits of the SHA-256 of the file; or a folder, which "
        "must end with / unless it exists",
    )
    parser.add_argument("--safetensors", action="store_true", help="write OUT-1a2b3c4d.safetensors")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    from engine.checkpoint.publish import publish, read_own

    path = publish(args.source, args.output, args.safetensors)
    content = read_own(path, mmap=True)
    print(f"{args.source}: {args.source.stat().st_size / 1e6:.1f} MB; published: {path.stat().st_size / 1e6:.1f} MB")
    print(f"classes: {', '.join(content.get('class_names') or []) or 'unknown'}")
    if not content.get("thresholds"):
        print("score thresholds: none; tools/test_net.py --write-thresholds stores them in IN")
    print(f"SHA-256: {sha256(path)}")
    print(f"written to {path}")


if __name__ == "__main__":
    run_tool(main)
