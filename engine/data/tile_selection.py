"""Detections of the views of an image: which of them are to be merged.

A view cuts the objects at its borders inside the image, and the model takes the parts for objects. So:

1. A detection that ends at such a border is *cut*. It is dropped if another tile shows the same place clear of its
   own borders, since that tile sees what lies beyond.
2. Other cut detections (their objects are too large for the overlap) count less: their score is multiplied by
   `CUT_SCORE`. They are dropped where a better detection of their class that is not cut covers most of them.
3. In the whole picture only objects count that tiles may not show whole; the others are too small there.
4. What is left is merged class by class.

Shapes: V views, P detections of all of them.
"""

from __future__ import annotations

import numpy as np

from engine.data.tiles import Tiling

CUT_SCORE = 0.5
COVERED = 0.5
"""The share of a cut detection that another one must cover."""
_AT_ONCE = 1 << 22  # pairs of boxes

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""boxes (P, 4) float32, scores (P,) float32, labels (P,) int64."""


def select(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    number: np.ndarray,
    views: np.ndarray,
    size: tuple[int, int],
    tiling: Tiling,
) -> Rows:
    """The detections of all views that are to be merged, cut ones with a lower score; see above.

    Args:
        boxes, scores, labels: see `Rows`; in pixels of the image, not yet clipped to it.
        number: (P,) int64, the view that each was found in.
        views: (V, 4) int64, see `Tiling.views`.
        size: (height, width) of the image.
    """
    boxes = np.minimum(np.maximum(boxes, 0), np.float32([size[1], size[0]] * 2))
    counts = (boxes[:, 2:] > boxes[:, :2]).all(1)  # others lie in what a tile was filled up with
    has_full = tiling.has_full(len(views))
    if has_full:
        sides = boxes[:, 2:] - boxes[:, :2]
        counts &= (number < len(views) - 1) | (sides > tiling.reach).any(1)
    found, number = _rows((boxes, scores, labels), counts), number[counts]
    clear = clear_areas(views, size, tiling.margin)  # (V, 4)
    is_cut = ~_lies_in(found[0], clear[number])  # (P,)
    tiles = clear[: len(views) - 1] if has_full else clear
    cut, rest = _rows(found, is_cut), _rows(found, ~is_cut)
    boxes, scores, labels = _rows(cut, ~_in_any(cut[0], tiles))
    cut = boxes, scores * np.float32(CUT_SCORE), labels
    cut = _rows(cut, ~_covered(cut, rest))
    return tuple(np.concatenate(pair) for pair in zip(rest, cut, strict=True))


def _rows(rows: Rows, index: np.ndarray) -> Rows:
    return tuple(each[index] for each in rows)


def clear_areas(views: np.ndarray, size: tuple[int, int], margin: float) -> np.ndarray:
    """(V, 4) float32: boxes that lie strictly within its area are not cut by a view.

    A side that is the border of the image cuts nothing, so the area has no limit there.

    Example:
        >>> clear_areas(np.array([[0, 0, 40, 30], [30, 0, 70, 30]]), (30, 70), 2.0).tolist()
        [[-inf, -inf, 38.0, inf], [32.0, -inf, inf, inf]]
    """
    height, width = size
    areas = views.astype(np.float32)
    is_border = areas == np.float32([0, 0, width, height])
    outward = np.float32([-np.inf, -np.inf, np.inf, np.inf])
    return np.where(is_border, outward, areas + np.float32([margin, margin, -margin, -margin]))


def _lies_in(boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Whether boxes (..., 4) lie strictly within areas (..., 4)."""
    return (boxes[..., :2] > areas[..., :2]).all(-1) & (boxes[..., 2:] < areas[..., 2:]).all(-1)


def _in_any(boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """(P,) whether each of `boxes` (P, 4) lies strictly within one of `areas` (V, 4)."""
    step = max(_AT_ONCE // len(areas), 1)
    parts = [_lies_in(boxes[k : k + step, None], areas[None]).any(1) for k in range(0, len(boxes), step)]
    return np.concatenate([*parts, np.zeros(0, bool)])


def _covered(cut: Rows, others: Rows) -> np.ndarray:
    """(P,) whether one of `others` of the same class, of at least the same score, covers most of each of `cut`."""
    parts = [np.zeros(0, bool)]
    other_boxes = others[0].astype(np.float64)[None]  # (1, Q, 4)
    step = max(_AT_ONCE // max(len(others[0]), 1), 1)
    for start in range(0, len(cut[0]), step):
        boxes, scores, labels = _rows(cut, slice(start, start + step))
        boxes = boxes.astype(np.float64)[:, None]  # (p, 1, 4)
        low = np.maximum(boxes[..., :2], other_boxes[..., :2])
        high = np.minimum(boxes[..., 2:], other_boxes[..., 2:])
        area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)  # (p, 1)
        covers = np.maximum(high - low, 0).prod(-1) >= COVERED * area
        is_rival = (others[2][None] == labels[:, None]) & (others[1][None] >= scores[:, None])
        parts.append((covers & is_rival).any(1))
    return np.concatenate(parts)
