#!/usr/bin/env python3
"""Compute metrics, a table per class and score thresholds from a COCO results file, without a model.

python tools/evaluate_results.py --config-file configs/my.yaml --results out/bbox.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.errors import InputError, run_tool
from engine.files import user_path, write_json


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=f"{summary} Writes metrics.json and thresholds.json.")
    parser.add_argument("--config-file", required=True, type=user_path, metavar="F", help="YAML configuration")
    parser.add_argument("--results", required=True, type=user_path, metavar="R", help="COCO results, a JSON list")
    parser.add_argument("--dataset", metavar="NAME", help="the data set (first of DATASETS.TEST)")
    parser.add_argument("--output-dir", type=user_path, metavar="O", help="folder for the files written (that of R)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of the configuration")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse_args(arguments)

    from engine.assembly.data import build_dataset
    from engine.assembly.testing import score_results
    from engine.config import load_config
    from engine.evaluation import metrics_table, read_results, read_skipped_images, thresholds_table

    cfg = load_config(args.config_file, args.opts)
    names = (args.dataset,) if args.dataset else tuple(cfg.DATASETS.TEST)
    if not names:
        raise InputError(f"{args.config_file}: DATASETS.TEST is empty; name a data set (--dataset)")
    dataset = build_dataset(cfg, names[0])
    results = read_results(args.results, dataset.annotations, dataset.merged_ids)
    skipped = read_skipped_images(args.results.parent / "metrics.json", dataset.annotations, results)
    outcome = score_results(cfg, dataset, results, skipped, of_this_model=False)
    metrics, thresholds = outcome["metrics"], outcome["thresholds"]
    output_dir = args.output_dir or args.results.parent
    files = [output_dir / f"{name}.json" for name in outcome]
    for file, content in zip(files, outcome.values(), strict=True):
        write_json(file, content)
    left_out = f", without {len(skipped)} that could not be read during the test" if skipped else ""
    print(f"{names[0]}: {metrics['num_images']} images{left_out}, {len(results)} detections\n")
    print(metrics_table(metrics), end="\n\n")
    print(thresholds_table(thresholds), end="\n\n")
    for note in metrics["notes"]:
        print(note)
    print("written:", ", ".join(map(str, files)))


if __name__ == "__main__":
    run_tool(main)
