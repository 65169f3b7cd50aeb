"""Which classes of an annotation file are trained and tested, and under which names.

Shapes: m annotations, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from engine.data.annotations import AnnotationTable, unused_ids
from engine.errors import InputError, shown
from engine.spelling import did_you_mean, normal_name

OTHER_CLASSES = ("refuse", "drop", "ignore")
"""What becomes of boxes of the classes that are not trained: an error, nothing, or an ignore region."""


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of `names` that are not in `known`, compared by `normal_name`."""
    normal = {normal_name(name) for name in known}
    return [name for name in names if normal_name(name) not in normal]


def check_classes(names: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise an `InputError` if one of `DATASETS.CLASSES` is not among the classes of `where`."""
    for name in unknown_names(names, known):
        hint = did_you_mean(name, known) or f" (it has {', '.join(map(shown, known))})"
        raise InputError(f"DATASETS.CLASSES: {shown(name)} is not a class of {where}{hint}")


def with_class_names(table: AnnotationTable, class_names: Sequence[str]) -> AnnotationTable:
    """`table` with the spelling of `class_names`, and with those of them that the file lacks.

    The latter go to the end, so `category_rows` stay as they are.
    """
    spelling = {normal_name(name): name for name in class_names}
    own = [spelling.get(normal_name(name), name) for name in table.category_names]
    lacking = [name for name in class_names if name not in own]
    return replace(
        table,
        category_ids=[*table.category_ids, *unused_ids(table.category_ids, len(lacking))],
        category_names=[*own, *lacking],
    )


def select_classes(table: AnnotationTable, kept: Sequence[str], others: str) -> tuple[AnnotationTable, int]:
    """`table` without the boxes of classes that are not `kept`, or with ignore regions instead of them.

    All categories stay, so that results of a model with more classes can be evaluated.

    Args:
        kept: class names of `table`, at least one.
        others: "drop", or "ignore": each such box becomes a region of every kept class, as metrics count by class.

    Returns:
        The table, and how many of its annotations are to be trained on: the rows after them repeat regions for the
        second and further classes, and training needs each only once.
    """
    category_of = {normal_name(name): row for row, name in enumerate(table.category_names)}
    kept_rows = np.array([category_of[normal_name(name)] for name in kept], dtype=np.int64)  # (K,)
    is_kept = np.isin(table.category_rows, kept_rows)  # (m,)
    if others == "drop":
        rows, num_own = np.flatnonzero(is_kept), int(is_kept.sum())
        categories = table.category_rows[rows]
    else:
        regions, num_own = np.flatnonzero(~is_kept), len(is_kept)
        rows = np.concatenate([np.arange(num_own), np.tile(regions, len(kept_rows) - 1)])
        first = np.where(is_kept, table.category_rows, kept_rows[0])
        categories = np.concatenate([first, np.repeat(kept_rows[1:], len(regions))])
    selected = replace(
        table,
        image_rows=table.image_rows[rows],
        category_rows=categories,
        boxes_xywh=table.boxes_xywh[rows],
        areas=table.areas[rows],
        crowd=table.crowd[rows] | ~is_kept[rows],
    )
    return selected, num_own
