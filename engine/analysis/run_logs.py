"""The metrics.jsonl of several runs: curves, seconds per iteration, final and best figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.tables import aligned_table
from engine.training.writers import METRICS_FILE, read_records

DEFAULT_METRICS = ("loss", "AP", "lr", "time")
EXACT_METRICS = ("lr", "eta_seconds", "memory_mb", "skipped_images")
"""Metrics without noise, which are not smoothed."""
UNITS = {"time": "seconds per iteration", "data_time": "seconds waiting for data"}


@dataclass(frozen=True)
class RunLog:
    """The records of a run, sorted by iteration."""

    name: str
    records: list[dict[str, Any]]

    def curve(self, metric: str) -> np.ndarray:
        """(N, 2) float64 iterations and values; NaN where a value is not finite or undefined (-1 in validation)."""
        points = [(record["iteration"], record[metric]) for record in self.records if metric in record]
        curve = np.array(points, float).reshape(-1, 2)  # null in the file, None here, becomes NaN
        values = curve[:, 1]
        values[np.isinf(values) | (is_validation(metric) & (values == -1))] = math.nan
        return curve


def is_validation(metric: str) -> bool:
    """Whether a metric is a figure of a data set, such as NAME/AP, and not of training."""
    return "/" in metric


def read_runs(paths: Sequence[Path]) -> list[RunLog]:
    """The runs in folders with a metrics.jsonl, or in such files, under different names.

    Raises:
        InputError: there is no such file, or it has no records.
    """
    files = [path / METRICS_FILE if path.is_dir() else path for path in paths]
    runs = []
    for file, name in zip(files, short_names([file.resolve() for file in files]), strict=True):
        if not file.exists():
            raise InputError(f"{file} does not exist; give the folder of a run (its OUTPUT_DIR) or its {METRICS_FILE}")
        records = read_records(file)
        if not records:
            raise InputError(f"{file}: has no records; either nothing was logged yet, or it is not a {METRICS_FILE}")
        runs.append(RunLog(name, sorted(records, key=lambda record: record["iteration"])))
    return runs


def short_names(files: Sequence[Path]) -> list[str]:
    """For each file the shortest end of its path that no other file has, without "metrics.jsonl".

    Example:
        >>> short_names([Path("/o/a/metrics.jsonl"), Path("/o/b/metrics.jsonl")])
        ['a', 'b']
        >>> short_names([Path("/o/a/1/metrics.jsonl"), Path("/o/b/1/metrics.jsonl"), Path("/o/b/old.jsonl")])
        ['a/1', 'b/1', 'old.jsonl']
    """
    parts = [file.parts[:-1] if file.name == METRICS_FILE else file.parts for file in files]

    def ending(own: tuple[str, ...]) -> str:
        others = [other for other in parts if other != own]
        length = next((k for k in range(1, len(own)) if all(own[-k:] != other[-k:] for other in others)), len(own))
        return "/".join(own[-length:])

    return [ending(own) for own in parts]


def find_metrics(runs: Sequence[RunLog], wanted: Sequence[str] = ()) -> list[str]:
    """The metrics to show, each once: "loss" means itself, "AP" means NAME/AP of all validated data sets.

    Args:
        wanted: names; by default those of `DEFAULT_METRICS` that the runs have.

    Raises:
        InputError: no run has one of `wanted`, or no run has any of the default ones; lists the known names.
    """
    known = list(dict.fromkeys(name for run in runs for record in run.records for name in record))
    known.remove("iteration")
    found: list[str] = []
    for name in wanted or DEFAULT_METRICS:
        fitting = [name] if name in known else [each for each in known if each.endswith(f"/{name}")]
        if wanted and not fitting:
            raise InputError(f"--metrics: no run has {name}; known are {', '.join(sorted(known))}")
        found += fitting
    if not found:
        hint = f"choose from {', '.join(sorted(known))} with --metrics" if known else "there is nothing to draw"
        raise InputError(f"no run has {', '.join(DEFAULT_METRICS)}; {hint}")
    return list(dict.fromkeys(found))


def panels(runs: Sequence[RunLog], metrics: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """The curves of `metrics` by title and name of the run, for `curves_plot`."""
    titles = {metric: f"{metric} ({UNITS[metric]})" if metric in UNITS else metric for metric in metrics}
    return {title: {run.name: run.curve(metric) for run in runs} for metric, title in titles.items()}


def times_table(runs: Sequence[RunLog]) -> str:
    """Iterations, hours, seconds per iteration over the logged periods, share of waiting for data, memory.

    The mean and the hours include the time between iterations (checkpoints, validations); the median does not.
    """
    headers = ["run", "iterations", "hours", "s/iter median", "mean", "p95", "data", "memory MB"]
    with np.errstate(all="ignore"):  # a file may hold any numbers, also such as have no mean
        return aligned_table(headers, [[run.name, *_times(run)] for run in runs])


def _times(run: RunLog) -> list[str]:
    periods, data = run.curve("time"), run.curve("data_time")
    iterations = str(run.records[-1]["iteration"])
    if not len(periods):
        return [iterations, *["-"] * 6]
    lengths = np.diff(periods[:, 0], prepend=0)
    if len(lengths) > 1:
        lengths[0] = min(lengths[0], lengths[1])  # a file may start in the middle of a run
    seconds = periods[:, 1]
    total = (seconds * lengths).sum()
    share = (data[:, 1] * lengths).sum() / total if len(data) == len(periods) and total else math.nan
    memory = run.curve("memory_mb")[:, 1]
    figures = [f"{figure:.4g}" for figure in (np.median(seconds), total / lengths.sum(), np.percentile(seconds, 95))]
    waiting = "-" if math.isnan(share) else f"{share:.1%}"
    return [iterations, f"{total / 3600:.2f}", *figures, waiting, f"{memory.max():.0f}" if len(memory) else "-"]


def figures_table(runs: Sequence[RunLog], metrics: Sequence[str]) -> str:
    """The last value of each of `metrics`; for validation metrics also the best value and its iteration.

    The best loss is the smallest; for all other metrics the best value is the largest.
    """
    headers = ["run"]
    for metric in metrics:
        headers += [metric, "best", "at"] if is_validation(metric) else [metric]
    rows = []
    for run in runs:
        row = [run.name]
        for metric in metrics:
            curve = run.curve(metric)
            curve = curve[np.isfinite(curve[:, 1])]
            row.append(f"{curve[-1, 1]:.4g}" if len(curve) else "-")
            if is_validation(metric):
                row += _best(curve, metric)
        rows.append(row)
    return aligned_table(headers, rows)


def _best(curve: np.ndarray, metric: str) -> list[str]:
    if not len(curve):
        return ["-", "-"]
    pick = np.argmin if metric.rsplit("/", 1)[-1].startswith("loss") else np.argmax
    iteration, value = curve[pick(curve[:, 1])]
    return [f"{value:.4g}", f"{iteration:.0f}"]
