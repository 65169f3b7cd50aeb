"""The figures as plain-text tables for the console and the log."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

WIDTH = 100  # columns of text a table may take
FEW_CLASSES = 20  # up to here a class has a line of its own with all its figures
UNDEFINED = "-"

_Row = list[str]


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """The overall figures and a table of classes, from the object of `metrics.json`.

    Few classes have a line each; many share lines, with their AP and AP50 only.
    """
    overall = metrics["bbox"]
    parts = [aligned_table(list(overall), [[_fraction(v) for v in overall.values()]], text_columns=())]
    per_class = metrics["per_class"]
    if 0 < len(per_class) <= FEW_CLASSES:
        shown = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"]
        rows = [
            [name, str(figures["num_gt"]), *(_fraction(figures[key]) for key in shown)]
            for name, figures in per_class.items()
        ]
        parts.append(aligned_table(["class", "num_gt", *shown], rows))
    elif per_class:
        rows = [[name, _fraction(figures["AP"]), _fraction(figures["AP50"])] for name, figures in per_class.items()]
        parts.append(_side_by_side(["class", "AP", "AP50"], rows))
    return "\n\n".join(parts)


def thresholds_table(thresholds: Mapping[str, Any]) -> str:
    """A line for each class, from the object of `thresholds.json`; one without says why."""
    keys = ["threshold", "f_measure", "precision", "recall"]
    classes = thresholds["classes"]
    rows = [
        [
            name,
            *(_fraction(entry[key]) for key in keys),
            str(entry["num_gt"]),
            entry.get("reason", ""),
        ]
        for name, entry in classes.items()
    ]
    headers = ["class", *keys, "num_gt", ""]
    if not any(row[-1] for row in rows):
        headers, rows = headers[:-1], [row[:-1] for row in rows]
    settings = f"IoU {thresholds['iou']:g}, beta {thresholds['beta']:g}"
    caption = f"score thresholds of the best f-measure ({settings})"
    return f"{caption}\n{aligned_table(headers, rows, text_columns=(0, 6))}"


def validation_table(figures: Mapping[str, Mapping[str, float]], metric: str) -> str:
    """A line for each data set: AP, AP50, `metric` and, where there are losses, their sum.

    Args:
        figures: of each data set by name, see `evaluation.build.Validation`.
        metric: what the best model is chosen by.
    """
    names = list(dict.fromkeys(["AP", "AP50", metric]))
    if any("loss" in row for row in figures.values()):
        names = [name for name in names if name != "loss"] + ["loss"]
    rows = [[name, *(_figure(key, row.get(key)) for key in names)] for name, row in figures.items()]
    return aligned_table(["data set", *names], rows)


def _figure(name: str, value: float | None) -> str:
    return f"{value:.4f}" if name == "loss" and value is not None else _fraction(value)


def display_width(text: str) -> int:
    """Columns `text` takes in a terminal: a Chinese character takes 2, a combining mark none.

    Example:
        >>> display_width("ab"), display_width("破洞")
        (2, 4)
    """
    return sum(
        0
        if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Mn", "Me")
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )


def _side_by_side(headers: Sequence[str], rows: list[_Row]) -> str:
    """Rows in as many groups of columns as fit, read downwards."""
    name_width = max(display_width(row[0]) for row in rows)
    group_width = max(name_width, len(headers[0])) + sum(2 + max(len(h), 5) for h in headers[1:]) + 2
    groups = max(1, min(WIDTH // group_width, len(rows)))
    height = math.ceil(len(rows) / groups)
    groups = math.ceil(len(rows) / height)
    blank = [""] * len(headers)
    lines = []
    for i in range(height):
        parts = [rows[i + g * height] if i + g * height < len(rows) else blank for g in range(groups)]
        lines.append([cell for part in parts for cell in part])
    names = tuple(g * len(headers) for g in range(groups))
    return aligned_table(list(headers) * groups, lines, text_columns=names)


def aligned_table(headers: list[str], rows: list[_Row], text_columns: tuple[int, ...] = (0,)) -> str:
    """tabulate, with names of wide characters aligned whether or not `wcwidth` is installed.

    A cell with such characters goes in as a run of one private character, as long as the cell is
    wide, and is put back afterwards.
    """
    stand_ins: dict[str, str] = {}

    def stand_in(text: str) -> str:
        if text.isascii():
            return text
        run = chr(0xF0000 + len(stand_ins)) * max(display_width(text), 1)
        stand_ins[run] = text
        return run

    body = [[stand_in(_one_line(cell)) for cell in row] for row in rows]
    align = ["left" if i in text_columns else "right" for i in range(len(headers))]
    text = tabulate(body, headers, tablefmt="simple", colalign=align, disable_numparse=True)
    for run, original in stand_ins.items():
        text = text.replace(run, original)
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split()) if any(char.isspace() and char != " " for char in text) else text


def _fraction(value: float | None) -> str:
    """Three decimals; pycocotools' -1 and a missing threshold as a dash."""
    return UNDEFINED if value is None or value < 0 else f"{value:.3f}"
