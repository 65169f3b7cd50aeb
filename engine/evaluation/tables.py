"""Figures as plain-text tables for the console and the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.tables import aligned_table, side_by_side

FEW_CLASSES = 20  # up to this number, each class has its own line with all its figures


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """The overall figures and a table of classes, from the object of `metrics.json`.

    Up to `FEW_CLASSES` classes have a line each; more of them share lines, with AP and AP50 only.
    """
    overall = metrics["bbox"]
    parts = [aligned_table(list(overall), [[_fraction(v) for v in overall.values()]], text_columns=())]
    per_class = metrics["per_class"]
    if 0 < len(per_class) <= FEW_CLASSES:
        shown = ["AP", "AP50", "AP75", "APs", "APm", "APl", f"AR{metrics.get('max_dets', 100)}"]
        rows = [[name, str(row["num_gt"]), *(_fraction(row[key]) for key in shown)] for name, row in per_class.items()]
        parts.append(aligned_table(["class", "num_gt", *shown], rows))
    elif per_class:
        rows = [[name, _fraction(row["AP"]), _fraction(row["AP50"])] for name, row in per_class.items()]
        parts.append(side_by_side(["class", "AP", "AP50"], rows))
    return "\n\n".join(parts)


def thresholds_table(thresholds: Mapping[str, Any]) -> str:
    """A line for each class, from the object of `thresholds.json`; a class without a threshold has the reason."""
    keys = ["threshold", "f_measure", "precision", "recall"]
    rows = []
    for name, entry in thresholds["classes"].items():
        rows.append([name, *(_fraction(entry[key]) for key in keys), str(entry["num_gt"]), entry.get("reason", "")])
    headers = ["class", *keys, "num_gt", ""]
    if not any(row[-1] for row in rows):  # no reasons: the last column would be blank
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    settings = f"IoU {thresholds['iou']:g}, beta {thresholds['beta']:g}"
    caption = f"score thresholds with the best f-measure ({settings})"
    return f"{caption}\n{aligned_table(headers, rows, text_columns=(0, 6))}"


def validation_table(figures: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """A line for each data set: AP, AP50, `metric` and, where there are losses, their sum.

    Args:
        figures: data set -> its figures, see `assembly.testing.Validation`.
        metric: the figure by which the best model is chosen.
    """
    names = list(dict.fromkeys(["AP", "AP50", metric]))  # `metric` may be one of the two
    if any("loss" in row for row in figures.values()):
        names = [name for name in names if name != "loss"] + ["loss"]
    rows = [[name, *(_figure(key, row.get(key)) for key in names)] for name, row in figures.items()]
    return aligned_table(["data set", *names], rows)


def _figure(name: str, value: float | None) -> str:
    return f"{value:.4f}" if name == "loss" and value is not None else _fraction(value)


def _fraction(value: float | None) -> str:
    """Three decimals; a dash for pycocotools' -1 ("undefined") and for a missing threshold."""
    return "-" if value is None or value < 0 else f"{value:.3f}"
