"""Plot curves of any metrics of any number of runs, and print seconds per iteration, final and best values.

python tools/analyze_logs.py outputs/a outputs/b --metrics loss AP --output curves.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool
from engine.files import user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", type=user_path, help="OUTPUT_DIR of a run, or its metrics.jsonl"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        default=[],
        help="loss, grad_norm, memory_mb, ...; AP means that of all validated data sets, NAME/AP that of one "
        "(loss AP lr time)",
    )
    parser.add_argument(
        "--output", metavar="PNG", type=user_path, help="picture to write (curves.png in the folder of the first run)"
    )
    parser.add_argument("--smooth", metavar="N", type=int, default=1, help="smooth over N neighbouring points (1)")
    parser.add_argument("--log", action="store_true", help="logarithmic y axes")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)
    if args.smooth < 1:
        raise InputError(f"--smooth is {args.smooth}; it must be 1 or more")

    from engine.analysis.run_logs import EXACT_METRICS, figures_table, find_metrics, panels, read_runs, times_table
    from engine.data.image_file import write_image
    from engine.visualize.curves import curves_plot

    runs = read_runs(args.runs)
    metrics = find_metrics(runs, args.metrics)
    print(times_table(runs), end="\n\n")
    print(figures_table(runs, [name for name in metrics if name != "time"]), end="\n\n")
    first = args.runs[0]
    output = args.output or (first if first.is_dir() else first.parent) / "curves.png"
    write_image(output, curves_plot(panels(runs, metrics), args.smooth, args.log, EXACT_METRICS))
    print(f"curves: {output}")


if __name__ == "__main__":
    run_tool(main)
