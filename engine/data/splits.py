"""Splits of a data set: which images are for training, which for validation and testing.

Images that belong together (near-copies, entries of one file) form a unit, which is never divided. All chance comes
from a seed.

Shapes: n images, c classes, s splits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from engine.data.formats.values import IdRows, flag
from engine.errors import InputError, shown
from engine.tables import aligned_table

Units = list[list[int]]
"""Indices of images, unit by unit."""


def units_of(file_names: Sequence[str], pattern: str = "") -> Units:
    """Images that stay together, in the order of the names of their first ones.

    Args:
        pattern: a regular expression that is searched in each name; names with the same first group (or match, without
            groups) belong together. Names that do not match, and without a pattern all, stand for themselves.

    Raises:
        InputError: the pattern is not valid, or matches no name.

    Example:
        >>> units_of(["b.jpg", "a_2.jpg", "a_1.jpg"], r"(.*)_")
        [[2, 1], [0]]
    """
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"{shown(pattern)}: is not a valid regular expression ({error})") from None
    units: dict[tuple[str, str], list[int]] = {}
    for index in sorted(range(len(file_names)), key=file_names.__getitem__):
        name = file_names[index]
        match = expression.search(name) if pattern else None
        key = ("group", match[1 if expression.groups else 0] or "") if match else ("name", name)
        units.setdefault(key, []).append(index)
    if pattern and file_names and not any(kind == "group" for kind, _ in units):
        raise InputError(f"{shown(pattern)}: matches no name of an image, such as {shown(file_names[0])}")
    return list(units.values())


def every_nth(units: Units, n: int) -> np.ndarray:
    """(n,) 1 for the images of every n-th unit, 0 for the others.

    Example:
        >>> every_nth([[0], [1], [2], [3], [4]], 2).tolist()
        [0, 1, 0, 1, 0]
    """
    split = np.zeros(sum(map(len, units)), dtype=np.int64)
    for number, unit in enumerate(units):
        split[unit] = number % n == n - 1
    return split


def assign(units: Units, shares: Sequence[float], seed: int = 0, counts: np.ndarray | None = None) -> np.ndarray:
    """(n,) the split of each image, so that splits have their `shares` of the images.

    Units of one image give exactly the shares, rounded; larger ones come as near as they can.

    Args:
        shares: s positive numbers.
        counts: (n, c) boxes of each class in each image. Where they are given, each split also gets its share of each
            class, the rarest first (Sechidis et al., "On the stratification of multi-label data", 2011).

    Example:
        >>> assign([[0], [1], [2], [3], [4]], (0.8, 0.2), seed=3).tolist()
        [0, 0, 1, 0, 0]
    """
    num_images, random = sum(map(len, units)), Random(seed)
    order = list(range(len(units)))
    random.shuffle(order)
    order.sort(key=lambda index: -len(units[index]))  # large ones first, while there is room everywhere
    room = np.array(_rounded(num_images, shares), dtype=np.float64)  # images that each split still takes
    split = np.full(num_images, -1, dtype=np.int64)
    if counts is None:
        counts = np.zeros((num_images, 0), dtype=np.int64)
    unit_counts = np.array([counts[unit].sum(0) for unit in units]).reshape(len(units), -1)  # (u, c)
    parts = np.asarray(shares, dtype=np.float64) / sum(shares)
    wanted = parts[:, None] * unit_counts.sum(0)  # (s, c) boxes that each split still lacks
    left = dict.fromkeys(order)
    while left:
        rest = unit_counts[list(left)].sum(0)
        rarest = int(np.where(rest > 0, rest, np.inf).argmin()) if (rest > 0).any() else None
        chosen = list(left) if rarest is None else [index for index in left if unit_counts[index, rarest]]
        if rarest is not None:  # many boxes of it first, for the same reason
            chosen.sort(key=lambda index: -unit_counts[index, rarest])
        for index in chosen:
            size = len(units[index])
            is_open = room >= size if (room >= size).any() else room == room.max()
            # Per image that it still takes, so that none is full before it has its share.
            need = wanted[:, rarest] / np.maximum(room, 1) if rarest is not None else room / parts
            best = max(np.flatnonzero(is_open).tolist(), key=lambda each: (need[each], room[each], -each))
            split[units[index]] = best
            room[best] -= size
            wanted[best] -= unit_counts[index]
            del left[index]
    return split


def _rounded(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to `shares` whose sum is `total`; the largest remainders are rounded up."""
    exact = [total * share / sum(shares) for share in shares]
    numbers = [int(each) for each in exact]
    by_remainder = sorted(range(len(shares)), key=lambda index: (numbers[index] - exact[index], index))
    for index in by_remainder[: total - sum(numbers)]:
        numbers[index] += 1
    return numbers


# ---------------------------------------------------------------- of COCO dictionaries


def box_counts(data: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(n, c) boxes of each category in each image of a COCO dictionary, and (n,) ignore regions, which do not count."""
    images = IdRows({row["id"]: index for index, row in enumerate(data["images"])})
    categories = IdRows({row["id"]: index for index, row in enumerate(data["categories"])})
    counts = np.zeros((len(data["images"]), len(data["categories"])), dtype=np.int64)
    ignored = np.zeros(len(data["images"]), dtype=np.int64)
    for row in data["annotations"]:
        image = images.find(row["image_id"])
        if flag(row.get("iscrowd")) or flag(row.get("ignore")):
            ignored[image] += 1
        else:
            counts[image, categories.find(row["category_id"])] += 1
    return counts, ignored


def split_coco(data: Mapping[str, Any], split: np.ndarray, number: int) -> dict[str, Any]:
    """The images of a COCO dictionary whose split is `number`, with their annotations; all ids stay as they are."""
    images = IdRows({row["id"]: index for index, row in enumerate(data["images"])})
    is_in = (split == number).tolist()
    return {
        **data,
        "images": [row for row, inside in zip(data["images"], is_in, strict=True) if inside],
        "annotations": [row for row in data["annotations"] if is_in[images.find(row["image_id"])]],
    }


# ---------------------------------------------------------------- what came of it


def counts_table(
    names: Sequence[str],
    split: np.ndarray,
    counts: np.ndarray,
    ignored: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
) -> str:
    """Images and boxes of each class in each split, exactly.

    Args:
        names: of the s splits.
        split: (n,) of each image.
        counts: (n, c) boxes, and `ignored` (n,) ignore regions, see `box_counts`.
    """
    rows = []
    for title_of_row, values in (
        ("images", np.ones_like(ignored)),
        ("images without boxes", (counts.sum(1) == 0).astype(np.int64)),
        *((name, counts[:, column]) for column, name in enumerate(class_names)),
        ("ignore regions", ignored),
    ):
        each = [int(values[split == number].sum()) for number in range(len(names))]
        rows.append([title_of_row, *map(str, each), str(sum(each))])
    return aligned_table([title, *names, "all"], rows)


def missing_classes(
    names: Sequence[str], split: np.ndarray, counts: np.ndarray, class_names: Sequence[str], title: str = ""
) -> list[str]:
    """A line for each class that has boxes, but none in one of the splits."""
    lines = []
    prefix = f"{title}: " if title else ""
    for column, class_name in enumerate(class_names):
        total, holders = int(counts[:, column].sum()), int((counts[:, column] > 0).sum())
        for number, name in enumerate(names):
            if total and not counts[split == number, column].any():
                lines.append(f"{prefix}no box of {shown(class_name)} in {name} (of {total}, in {holders} images)")
    return lines
