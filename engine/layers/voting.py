"""Box voting: overlapping boxes of a class become one, weighted by their scores (Gidaris & Komodakis, 2015).

The best box leads all boxes of its class that overlap it enough, then the best of the rest leads, and so on. Only this
greedy grouping is sequential (`find_leaders`): a compiled loop, or NumPy where there is no compiler, with the same
bits. Means and lowered scores are sums over groups. All is computed in float64 on the CPU, for all classes at once.

The rules take tensors, or arrays in a process without torch, and give back what they got.

Shapes: P boxes in, D boxes out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from engine.registry import Registry

try:
    from engine.layers._voting import find_leaders as _find_leaders_compiled
except ImportError:  # no compiler when the package was installed
    _find_leaders_compiled = None

Rows = TypeVar("Rows", "Tensor", np.ndarray)
Merged = tuple["Tensor", "Tensor", "Tensor"]
"""Boxes (D, 4), scores (D,), labels (D,), highest score first."""

SLACK = 1e-9
"""Relative widening of a search window, far above float64's rounding."""
MIN_THRESH = 1e-6
"""Below this IoU a window would contain everything."""


def vote(
    boxes: Rows, scores: Rows, labels: Rows, iou_thresh: float, over_smaller: bool = False
) -> tuple[Rows, Rows, Rows]:
    """One box per group: the mean box, weighted by score (evenly if all scores are 0), with the largest score.

    A group consists of the boxes of a class whose IoU with its best one is at least `iou_thresh`. The order of the
    input does not matter: equal scores are ranked by label and coordinates. A box alone does not change, one without
    extent overlaps none, and boxes or scores that are not finite are dropped.

    Args:
        boxes: (P, 4) float, xyxy.
        scores: (P,) float, not negative.
        labels: (P,) int64.
        iou_thresh: at least 0, where all boxes of a class are one group.
        over_smaller: divide the intersection by the area of the smaller box, not of the union: a part joins its whole.

    Example:
        >>> boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 8]])
        >>> mean, scores, _ = vote(boxes, np.float32([0.75, 0.25]), np.array([0, 0]), 0.5)
        >>> mean.tolist(), scores.tolist()
        ([[0.0, 0.0, 10.0, 9.5]], [0.75])
    """
    return soft_vote(boxes, scores, labels, iou_thresh, score_thresh=math.inf, over_smaller=over_smaller)


def soft_vote(
    boxes: Rows, scores: Rows, labels: Rows, iou_thresh: float, score_thresh: float, over_smaller: bool = False
) -> tuple[Rows, Rows, Rows]:
    """Like `vote`, except that the other boxes of a group stay with the score times (1 - IoU with the best box).

    They stay if that score is at least `score_thresh` and not 0. The other arguments are those of `vote`.
    """
    corners, weights, classes, _ = _finite(boxes, scores, labels)
    leaders, ious = find_leaders(corners, weights, classes, iou_thresh, over_smaller)
    is_leader = leaders == np.arange(len(leaders))
    merged = _mean_boxes(corners, weights, leaders)[is_leader], weights[is_leader], classes[is_leader]
    lowered = weights * (1 - ious)
    stays = ~is_leader & (lowered >= score_thresh) & (lowered > 0)
    rest = corners[stays], lowered[stays], classes[stays]
    merged = tuple(np.concatenate(pair) for pair in zip(merged, rest, strict=True))
    ranking = _rank(*merged)
    return tuple(_as(given, each[ranking]) for each, given in zip(merged, (boxes, scores, labels), strict=True))


def nms(
    boxes: Rows, scores: Rows, labels: Rows, iou_thresh: float, over_smaller: bool = False
) -> tuple[Rows, Rows, Rows]:
    """Class-wise suppression; `over_smaller` as in `vote`, without it as `layers.nms.class_nms` does it.

    There a box is suppressed by an IoU above the threshold, not at it, and equal scores are ranked by their order.
    """
    corners, weights, classes, finite = _finite(boxes, scores, labels)
    by_score = np.argsort(-weights, kind="stable")
    kept = by_score
    if over_smaller or iou_thresh > 0:
        thresh = iou_thresh if over_smaller else np.nextafter(iou_thresh, np.inf)
        leaders, _ = find_leaders(
            corners, weights, classes, thresh, over_smaller, ranking=None if over_smaller else by_score
        )
        kept = by_score[(leaders == np.arange(len(leaders)))[by_score]]
    kept = finite[kept]
    return boxes[kept], scores[kept], labels[kept]


RULES: Mapping[str, Callable[..., Any]] = {"vote": vote, "soft-vote": soft_vote, "nms": nms}
"""Rule by its name in `TEST.BBOX_AUG.MERGE_TYPE` and `TILING.MERGE_TYPE`; all also stand in the registry `MERGERS`."""


def __getattr__(name: str) -> Registry:
    """`MERGERS`: (boxes, scores, labels, ...) -> Merged by name, on first use, since the runtime has no registries."""
    if name == "MERGERS":
        return _mergers()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _mergers() -> Registry:
    from engine.registry import Registry

    mergers = Registry("MERGERS")
    for name, rule in RULES.items():
        mergers.register(name)(rule)
    return mergers


def _finite(boxes: Rows, scores: Rows, labels: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes and scores as float64, and labels, without what is not finite; and the indices of those that are."""
    corners, weights, classes = map(_array, (boxes, scores, labels))
    finite = np.flatnonzero(np.isfinite(corners).all(axis=1) & np.isfinite(weights))
    corners, weights = corners[finite].astype(np.float64), weights[finite].astype(np.float64)
    return corners, weights, classes[finite], finite


def _array(rows: Rows) -> np.ndarray:
    return rows if isinstance(rows, np.ndarray) else rows.detach().cpu().numpy()


def _as(given: Rows, rows: np.ndarray) -> Rows:
    """An array as what was given: an array of its type, or a tensor like it."""
    return rows.astype(given.dtype) if isinstance(given, np.ndarray) else given.new_tensor(rows, dtype=given.dtype)


def _mean_boxes(corners: np.ndarray, weights: np.ndarray, leaders: np.ndarray) -> np.ndarray:
    """Weighted mean (P, 4) of each leader's group; rows of boxes that lead none are meaningless.

    Offsets from the leader are averaged, so that a box alone keeps its bits.
    """
    count = len(corners)
    totals = np.bincount(leaders, weights, count)
    weights = np.where(totals[leaders] > 0, weights, 1.0)
    totals = np.bincount(leaders, weights, count)
    offsets = (corners - corners[leaders]) * weights[:, None]
    sums = np.stack([np.bincount(leaders, offsets[:, side], count) for side in range(4)], axis=1)
    return corners + sums / np.where(totals > 0, totals, 1.0)[:, None]


def _rank(corners: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Indices by descending score, then by label and coordinates, so that the order of the input never decides."""
    ranking = np.argsort(-scores)  # much faster than by all keys, and enough where no scores are equal
    ranked = scores[ranking]
    if (ranked[1:] == ranked[:-1]).any():
        return np.lexsort((*corners.T[::-1], classes, -scores))
    return ranking


def find_leaders(
    corners: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    iou_thresh: float,
    over_smaller: bool = False,
    ranking: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The box that leads each box, and the IoU with it.

    In the order of descending scores, each box without a leader leads itself and all boxes of its class without one
    whose IoU with it is at least `iou_thresh`. An IoU of t needs an overlap of at least t times the larger width and
    height, which leaves a window of x1 and y1 to search: work grows with the boxes in reach of a leader, not with all.

    Args:
        corners: (P, 4) float64 xyxy, finite.
        scores: (P,) float64.
        classes: (P,) int64.
        over_smaller: instead of the IoU take the intersection over the area of the smaller box. The window then is as
            far as the largest box of the class, and there is no compiled loop.
        ranking: (P,) int64 indices by descending scores; by default `_rank`, which does not depend on the order.

    Returns:
        leaders (P,) int64 indices; ious (P,) float64, 1 for a leader itself.
    """
    by_x = np.argsort(corners[:, 0])
    by_x = by_x[np.argsort(classes[by_x], kind="stable")]  # by class, then x1
    position = np.empty_like(by_x)
    position[by_x] = np.arange(len(by_x))
    order = position[_rank(corners, scores, classes) if ranking is None else ranking]
    corners, classes = corners[by_x], classes[by_x]
    class_bounds = np.r_[0, np.flatnonzero(classes[1:] != classes[:-1]) + 1, len(classes)]
    extents = np.maximum(corners[:, 2:] - corners[:, :2], 0.0)
    areas = extents[:, 0] * extents[:, 1]
    if over_smaller:
        low, high = _reach_of_any(corners[:, :2], extents, class_bounds, iou_thresh)
        leaders, ious = _find_leaders_numpy(corners, areas, order, class_bounds, low, high, iou_thresh, True)
    else:
        low, high = _reach(corners[:, :2], extents, iou_thresh)
        loop = _find_leaders_compiled or _find_leaders_numpy
        leaders, ious = loop(corners, areas, order, class_bounds, low, high, iou_thresh)
    return by_x[leaders[position]], ious[position]


def _reach(starts: np.ndarray, extents: np.ndarray, iou_thresh: float) -> tuple[np.ndarray, np.ndarray]:
    """Limits (P, 2) of the (x1, y1) of any box whose IoU with the box of that row is at least `iou_thresh` (t).

    On each axis such a box is at most 1 / t times as long and overlaps t times the longer of the two, so it starts at
    most (1 - t) / t lengths before and 1 - t lengths after. `starts` are (P, 2) x1, y1; `extents` (P, 2) width, height.
    """
    if iou_thresh < MIN_THRESH:
        return np.full_like(starts, -np.inf), np.full_like(starts, np.inf)
    before, after = extents * (1 - iou_thresh) / iou_thresh, extents * (1 - iou_thresh)
    slack = SLACK * (np.abs(starts) + extents + before)
    return starts - before - slack, starts + after + slack


def _reach_of_any(
    starts: np.ndarray, extents: np.ndarray, class_bounds: np.ndarray, thresh: float
) -> tuple[np.ndarray, np.ndarray]:
    """Limits as of `_reach` for the intersection over the smaller area, which only says that the boxes intersect."""
    if thresh < MIN_THRESH:
        return np.full_like(starts, -np.inf), np.full_like(starts, np.inf)
    longest = np.zeros_like(extents)
    for begin, end in pairwise(class_bounds.tolist()):
        longest[begin:end] = extents[begin:end].max(0, initial=0.0)
    slack = SLACK * (np.abs(starts) + extents + longest)
    return starts - longest - slack, starts + extents + slack


def _find_leaders_numpy(
    corners: np.ndarray,
    areas: np.ndarray,
    order: np.ndarray,
    class_bounds: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    iou_thresh: float,
    over_smaller: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The loop of `find_leaders` without a compiler; the arguments are those of `_voting.find_leaders`, and its own."""
    leaders, ious = np.full(len(corners), -1, dtype=np.int64), np.ones(len(corners))
    lefts, tops, rights, bottoms = np.ascontiguousarray(corners.T)
    first, stop = np.empty_like(order), np.empty_like(order)
    for begin, end in pairwise(class_bounds.tolist()):
        of_class = slice(begin, end)
        first[of_class] = begin + np.searchsorted(lefts[of_class], low[of_class, 0], side="right")
        stop[of_class] = begin + np.searchsorted(lefts[of_class], high[of_class, 0], side="right")
    for best, begin, end in zip(order.tolist(), first[order].tolist(), stop[order].tolist(), strict=True):
        if leaders[best] >= 0:
            continue
        leaders[best] = best
        near = tops[begin:end]
        near = begin + np.flatnonzero((near > low[best, 1]) & (near <= high[best, 1]) & (leaders[begin:end] < 0))
        width = np.minimum(rights[near], rights[best]) - np.maximum(lefts[near], lefts[best])
        height = np.minimum(bottoms[near], bottoms[best]) - np.maximum(tops[near], tops[best])
        inter = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        whole = np.minimum(areas[near], areas[best]) if over_smaller else areas[near] + areas[best] - inter
        iou = np.divide(inter, whole, out=np.zeros_like(inter), where=inter > 0)
        is_led = iou >= iou_thresh
        leaders[near[is_led]], ious[near[is_led]] = best, iou[is_led]
    return leaders, ious
