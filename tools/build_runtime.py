"""Build the wheel of engine-runtime, which detects with exported files and does not need torch.

python tools/build_runtime.py --output-dir dist
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import user_path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Build the wheel of engine-runtime, which does not need torch.")
    parser.add_argument(
        "--output-dir", type=user_path, metavar="D", default=Path("dist"), help="folder for the wheel (dist)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from engine import __version__
    from engine.export.runtime_wheel import build_wheel

    print(build_wheel(args.output_dir, __version__))


if __name__ == "__main__":
    run_tool(main)
