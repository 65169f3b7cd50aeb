"""Print the test results of several runs side by side: AP, AP50, AP75 and AP50 of each class.

python tools/compare_results.py outputs/a outputs/b
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", type=user_path, help="OUTPUT_DIR of a training or test")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)

    from engine.analysis.compared_results import results_table

    print(results_table(args.runs))


if __name__ == "__main__":
    run_tool(main)
