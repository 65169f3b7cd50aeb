"""Which classes of an annotation file are trained and tested, and under which names.

Shapes: m annotations, K classes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engine.data.annotations import AnnotationTable, CategoryId, unused_ids, with_annotations
from engine.errors import InputError, shown
from engine.log import warn_once
from engine.spelling import did_you_mean, normal_name

OTHER_CLASSES = ("refuse", "drop", "ignore")
"""What becomes of boxes of the classes that are not trained: an error, nothing, or an ignore region."""


NO_NAME = ""
"""The name of the classes that `DATASETS.CLASS_MAP` takes out; no class of a file has it."""

_BACKGROUND = ("background", "\u80cc\u666f")
"""Names of classes that stand for no object, without underscores around them, in lower case."""


@dataclass(frozen=True)
class ClassMap:
    """What becomes of the classes of a file before those to train on are selected.

    Attributes:
        new_names: name in the file -> new name, `NO_NAME` for none. Each class of the file is looked up once, so that
            {a: b, b: c} renames two classes and {a: b, b: a} exchanges them.
        nameless: what becomes of the boxes of classes that get no name: "drop" or "ignore".
        drop_background: leave out classes that stand for no object, see `background_rows`.
    """

    new_names: Mapping[str, str] = field(default_factory=dict)
    nameless: str = "drop"
    drop_background: bool = False


def mapped_classes(
    table: AnnotationTable, class_map: ClassMap, known: Sequence[str], name: str, ann_file: Path
) -> tuple[AnnotationTable, dict[CategoryId, CategoryId]]:
    """`table` as `class_map` has it. What is left out, and a background that stays, is said.

    Args:
        known: names that certainly are classes, see `background_rows`.
        name: of the data set, for messages.

    Returns:
        the table, and the ids of categories that became part of another one -> the id of that one.

    Raises:
        InputError: no class is left.
    """
    merged: dict[CategoryId, CategoryId] = {}
    if class_map.new_names:
        table, merged = renamed(table, class_map.new_names)
    if rows := background_rows(table, [*known, *class_map.new_names.values()]):
        counts = np.bincount(table.category_rows, minlength=len(table.category_ids))
        what = ", ".join(
            f"{shown(table.category_names[row])} (id {shown(table.category_ids[row])}, {counts[row]} boxes)"
            for row in rows
        )
        if class_map.drop_background:
            warn_once(f"{name}: left out as background: {what}")
            table, more = without_background(table, rows)
            merged = {id_: more.get(into, into) for id_, into in merged.items()} | more
        else:
            advice = "if it stands for no object, write DATASETS.DROP_BACKGROUND: True"
            warn_once(f"{name}: {what} is trained like any other class; {advice}")
    if all(each == NO_NAME for each in table.category_names):
        raise InputError(f"{ann_file}: DATASETS.CLASS_MAP leaves none of its classes; keep the name of one")
    return table, merged


def renamed(
    table: AnnotationTable, new_names: Mapping[str, str]
) -> tuple[AnnotationTable, dict[CategoryId, CategoryId]]:
    """`table` with the new names of its classes, see `ClassMap`; and which ids became part of which.

    Classes of the same name become one, under the lowest of their ids, as if the file had written them so; those
    without a name become one as well.
    """
    wanted = {normal_name(name): normal_name(new_name) for name, new_name in new_names.items()}
    names = [wanted.get(normal_name(name), name) for name in table.category_names]
    first: dict[str, int] = {}  # new name -> the first row that has it; rows ascend with the ids
    target = [first.setdefault(name, row) for row, name in enumerate(names)]
    kept = sorted(first.values())
    new_row = {row: place for place, row in enumerate(kept)}
    ids = table.category_ids
    merged = {ids[row]: ids[first_row] for row, first_row in enumerate(target) if row != first_row}
    rows = np.array([new_row[row] for row in target], dtype=np.int64)  # (c,)
    result = replace(
        table,
        category_ids=[ids[row] for row in kept],
        category_names=[names[row] for row in kept],
        category_rows=rows[table.category_rows],
    )
    return result, merged


def background_rows(table: AnnotationTable, known: Collection[str]) -> list[int]:
    """The categories that seem to stand for no object.

    They are called background, or have the id 0 and no boxes although other categories have some. Those that are
    `known` to be classes (of the model, or named by the user) are none.
    """
    normal = {normal_name(name) for name in known} | {NO_NAME}
    num_boxes = np.bincount(table.category_rows, minlength=len(table.category_ids))
    rows = []
    for row, (category_id, name) in enumerate(zip(table.category_ids, table.category_names, strict=True)):
        is_empty_zero = str(category_id) == "0" and not num_boxes[row] and num_boxes.any()
        if (name.lower().strip("_ ") in _BACKGROUND or is_empty_zero) and normal_name(name) not in normal:
            rows.append(row)
    return rows if len(rows) < len(table.category_ids) else []


def without_background(
    table: AnnotationTable, rows: Sequence[int]
) -> tuple[AnnotationTable, dict[CategoryId, CategoryId]]:
    """`table` without the boxes of the categories `rows`, which get no name; see `renamed`."""
    table = with_annotations(table, np.flatnonzero(~np.isin(table.category_rows, rows)))
    return renamed(table, {table.category_names[row]: NO_NAME for row in rows})


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
    selected = with_annotations(table, rows)
    return replace(selected, category_rows=categories, crowd=selected.crowd | ~is_kept[rows]), num_own
