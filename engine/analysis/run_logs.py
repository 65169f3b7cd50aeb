"""What the metrics.jsonl of several runs say: curves, seconds an iteration, final and best figures."""

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
"""Without noise that smoothing would take away."""
UNITS = {"time": "seconds an iteration", "data_time": "seconds waiting for data"}


@dataclass(frozen=True)
class RunLog:
    """The records of a run, by increasing iteration."""

    name: str
    records: list[dict[str, Any]]

    def curve(self, metric: str) -> np.ndarray:
        """(N, 2) float64 iterations and values; NaN where a value is not finite or undefined (-1 in validation)."""
        points = [(record["iteration"], record[metric]) for record in self.records if metric in record]
        values = np.array([(x, math.nan if y is None else y) for x, y in points], float).reshape(-1, 2)
        if is_validation(metric):
            values[values[:, 1] == -1, 1] = math.nan
        values[~np.isfinite(values[:, 1]), 1] = math.nan
        return values


def is_validation(metric: str) -> bool:
    """Whether it is a figure of a data set, NAME/AP, not of the training."""
    return "/" in metric


def read_runs(paths: Sequence[Path]) -> list[RunLog]:
    """The runs of folders with a metrics.jsonl, or of such files, under names that tell them apart.

    Raises:
        InputError: there is no such file, or no record in it.
    """
    files = [path / METRICS_FILE if path.is_dir() else path for path in paths]
    runs = []
    for file, name in zip(files, short_names([file.resolve() for file in files]), strict=True):
        if not file.exists():
            raise InputError(f"there is no {file}; name the folder of a run (its OUTPUT_DIR) or its {METRICS_FILE}")
        records = read_records(file)
        if not records:
            raise InputError(f"{file}: no record in it; either nothing was logged yet or it is no {METRICS_FILE}")
        runs.append(RunLog(name, sorted(records, key=lambda record: record["iteration"])))
    return runs


def short_names(files: Sequence[Path]) -> list[str]:
    """Of each file the shortest end of its path that no other has, without "metrics.jsonl".

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
    """The figures named, each once: "loss" is itself, "AP" is NAME/AP of all validated data sets.

    Args:
        wanted: names; none is those of `DEFAULT_METRICS` that there are.

    Raises:
        InputError: no run has one of `wanted`, or any of the default ones; says what there is.
    """
    known = list(
        dict.fromkeys(name for run in runs for record in run.records for name in record if name != "iteration")
    )
    found: list[str] = []
    for name in wanted or DEFAULT_METRICS:
        fitting = [name] if name in known else [each for each in known if each.endswith(f"/{name}")]
        if wanted and not fitting:
            raise InputError(f"--metrics: no run has {name}; there is {', '.join(sorted(known))}")
        found += fitting
    if not found:
        there_is = f"there is {', '.join(sorted(known))}: choose by --metrics" if known else "there is nothing to draw"
        raise InputError(f"no run has {', '.join(DEFAULT_METRICS)}; {there_is}")
    return list(dict.fromkeys(found))


def panels(runs: Sequence[RunLog], metrics: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """The curves of each of `metrics` by title and name of the run, for `curves_plot`."""
    titles = {metric: f"{metric} ({UNITS[metric]})" if metric in UNITS else metric for metric in metrics}
    return {title: {run.name: run.curve(metric) for run in runs} for metric, title in titles.items()}


def times_table(runs: Sequence[RunLog]) -> str:
    """Iterations, hours, seconds an iteration over the logged periods, the share of waiting for data, memory.

    The mean and the hours hold whatever came between two iterations (checkpoints, validations); the median does not.
    """
    headers = ["run", "iterations", "hours", "s/iter median", "mean", "p95", "data", "memory MB"]
    return aligned_table(headers, [[run.name, *_times(run)] for run in runs])


def _times(run: RunLog) -> list[str]:
    periods, data = run.curve("time"), run.curve("data_time")
    iterations = str(run.records[-1]["iteration"])
    if not len(periods):
        return [iterations, *["-"] * 6]
    lengths = np.diff(periods[:, 0], prepend=0)
    if len(lengths) > 1:
        lengths[0] = min(lengths[0], lengths[1])  # a file may begin in the middle of a run
    seconds = periods[:, 1]
    total = (seconds * lengths).sum()
    share = (data[:, 1] * lengths).sum() / total if len(data) == len(periods) and total else math.nan
    memory = run.curve("memory_mb")[:, 1]
    figures = (np.median(seconds), total / lengths.sum(), np.percentile(seconds, 95))
    return [
        iterations,
        f"{total / 3600:.2f}",
        *(f"{figure:.4g}" for figure in figures),
        "-" if math.isnan(share) else f"{share:.1%}",
        f"{memory.max():.0f}" if len(memory) else "-",
    ]


def figures_table(runs: Sequence[RunLog], metrics: Sequence[str]) -> str:
    """The last value of each of `metrics`, and of those of a validation the best one and its iteration.

    The best loss is the smallest, the best of all else the largest.
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
