"""Check the data sets of a configuration: annotations, images, and whether the configuration fits them.

python tools/check_dataset.py --config-file F --output-dir outputs/check

Prints what it finds and writes report.json and report.html. Exit code 1 if there are errors.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import run_tool
from engine.files import refuse_existing, user_path


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument(
        "--output-dir", metavar="O", type=user_path, help="folder for report.json and report.html (check in OUTPUT_DIR)"
    )
    parser.add_argument("--quick", action="store_true", help="open no images: annotations, headers and configuration")
    parser.add_argument(
        "--fix", metavar="DIR", type=user_path, help="write cleaned copies of the annotation files into a new folder"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse_args(arguments)
    from engine.config import load_config

    cfg = load_config(args.config_file, args.opts)

    from tqdm import tqdm

    from engine.assembly.doctor import check_data
    from engine.assembly.doctor_fix import fix_data
    from engine.files import write_json, write_text
    from engine.log import setup_logging
    from engine.reports.doctor_page import page
    from engine.reports.doctor_text import console_report, json_report

    setup_logging()
    bars = []

    def on_images(count: int) -> object:
        bars.append(tqdm(total=count, desc="images", leave=False, disable=not sys.stderr.isatty()))
        return bars[-1].update

    if args.fix:
        refuse_existing(args.fix)  # before the images are opened, which may take an hour
    checkup = check_data(cfg, args.quick, on_images)
    for bar in bars:
        bar.close()
    print(console_report(checkup.findings, checkup.summaries, checkup.looked))
    folder = args.output_dir or Path(cfg.OUTPUT_DIR) / "check"
    parts = checkup.findings, checkup.summaries, checkup.looked, str(args.config_file)
    write_json(folder / "report.json", json_report(*parts))
    write_text(folder / "report.html", page(*parts, checkup.datasets))
    print(f"\nreport: {folder / 'report.html'}, report.json")
    if args.fix:
        print(*fix_data(cfg, checkup, args.fix), sep="\n")
    return int(checkup.has_errors)


if __name__ == "__main__":
    run_tool(main)
