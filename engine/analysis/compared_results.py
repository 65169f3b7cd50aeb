"""The test results of several runs side by side, from the files that testing leaves in their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.analysis.run_logs import short_names
from engine.errors import InputError
from engine.files import read_json
from engine.tables import aligned_table

OVERALL = ("AP", "AP50", "AP75")


def results_table(runs: Sequence[Path]) -> str:
    """AP, AP50, AP75 and AP50 of each class, a row for each test set of each run; "-" for what is undefined.

    Args:
        runs: folders with `inference/NAME/metrics.json` (OUTPUT_DIR of trainings or tests).

    Raises:
        InputError: a folder has no such file, or it holds something else.
    """
    results: list[tuple[str, str, dict[str, Any]]] = []
    for run, name in zip(runs, short_names([run.resolve() / "metrics.jsonl" for run in runs]), strict=True):
        files = sorted(run.glob("inference/*/metrics.json"))
        if not run.is_dir():
            raise InputError(f"{run}: no such folder; give OUTPUT_DIR of a training or test")
        if not files:
            raise InputError(f"{run}: has no results (inference/NAME/metrics.json); test it with tools/test_net.py")
        results += [(name, file.parent.name, _metrics(file)) for file in files]
    classes = list(dict.fromkeys(name for *_, metrics in results for name in metrics["per_class"]))
    rows = [
        [
            run,
            data_set,
            *(_shown(metrics["bbox"].get(figure)) for figure in OVERALL),
            *(_shown(metrics["per_class"].get(each, {}).get("AP50")) for each in classes),
        ]
        for run, data_set, metrics in results
    ]
    return aligned_table(["run", "test set", *OVERALL, *(f"{each} AP50" for each in classes)], rows, (0, 1))


def _metrics(file: Path) -> dict[str, Any]:
    content = read_json(file)
    parts = [content.get(part) for part in ("bbox", "per_class")] if isinstance(content, dict) else []
    if not parts or not all(isinstance(part, dict) for part in (*parts, *(parts[1] or {}).values())):
        raise InputError(f"{file}: does not hold the metrics of a test; test the run again with tools/test_net.py")
    return content


def _shown(value: float | None) -> str:
    return "-" if not isinstance(value, (int, float)) or value < 0 else f"{value:.3f}"
