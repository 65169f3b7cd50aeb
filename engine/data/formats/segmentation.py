"""The box around a COCO segmentation: polygons, or a mask as run lengths.

Not pycocotools' decoder, which reads beyond the end of damaged run lengths.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.data.formats.values import is_box, number, numbers


def extent(segmentation: Any) -> list[float] | None:
    """[x, y, width, height] of what a segmentation covers; None if it is not one, or covers nothing.

    Args:
        segmentation: a list of polygons [x, y, x, y, ...], one polygon alone, or run lengths
            {"size": [height, width], "counts": list or text}.

    Example:
        >>> extent([[1, 2, 5, 2, 5, 8]])
        [1, 2, 4, 6]
        >>> extent({"size": [3, 2], "counts": [1, 2, 3]})
        [0, 1, 1, 2]
    """
    if isinstance(segmentation, dict):
        return _extent_of_mask(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    points: list[float] = []
    for polygon in polygons:
        values = numbers(polygon)
        if not values or len(values) % 2:
            return None
        points += values
    xs, ys = points[::2], points[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return box if is_box(box) else None  # 1e308 and -1e308 are infinitely far apart


def _extent_of_mask(mask: dict[str, Any]) -> list[float] | None:
    size, counts = numbers(mask.get("size"), 2), mask.get("counts")
    runs = _decode(counts) if isinstance(counts, str) else counts
    if not size or not isinstance(runs, list):
        return None
    # The runs alternate between outside and inside and go down the columns, beginning outside.
    height, width = size
    whole = [value for run in runs if (value := number(run)) is not None and value == int(value) and value >= 0]
    if len(whole) != len(runs) or not 0 < height < 2**31 or not 0 < width < 2**31 or sum(whole) > height * width:
        return None
    ends = np.cumsum(whole, dtype=np.int64)
    starts, ends = ends[:-1:2], ends[1::2]  # of the runs inside
    starts, lasts = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        return None
    height = int(height)
    in_one_column = starts // height == lasts // height
    top, bottom = (0, height - 1) if not in_one_column.all() else ((starts % height).min(), (lasts % height).max())
    left, right = starts[0] // height, lasts[-1] // height
    return [int(left), int(top), int(right - left + 1), int(bottom - top + 1)]


def _decode(text: str) -> list[int] | None:
    """Run lengths from COCO's text: 6 bits per character, 5 of them of the number, from the third on as differences."""
    runs: list[int] = []
    value = shift = 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift  # negative
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return None if shift else runs
