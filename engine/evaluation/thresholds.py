"""Per-class score thresholds that maximise the f-measure.

    f = (1 + beta^2) * precision * recall / (beta^2 * precision + recall)

The rule "raw" reads the precision-recall curve itself: what `score >= threshold` really gives on this data set. The
rule "interpolated" is the reference's: precision as COCO interpolates it (the best at this recall or beyond) at 101
recall points, so its figures are not those of the threshold.

Shapes: D detections of one class, R recall points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.errors import InputError
from engine.evaluation.coco import MAX_DETS, unique_names
from engine.evaluation.matches import NO_MATCH, Matches, rows_per_label

RULES = ("raw", "interpolated")
NO_GROUND_TRUTH = "no ground truth"
ONLY_CROWDS = "only crowd ground truth"
NO_TRUE_DETECTION = "no detection matches ground truth"
RECALL_POINTS = np.linspace(0.0, 1.0, 101)  # (R,), those of COCO


class OperatingPoint(NamedTuple):
    """A point of the precision-recall curve: what `score >= threshold` gives; all but the score in [0, 1]."""

    threshold: float
    f_measure: float
    precision: float
    recall: float


class ClassMatches(NamedTuple):
    """Detections of one class over a data set at one IoU threshold, without those that are ignored."""

    scores: np.ndarray  # (D,) float64
    is_true: np.ndarray  # (D,) bool
    num_gt: int  # boxes to be found
    num_ignored: int  # boxes not to be found: crowd regions


def fmeasure_thresholds(
    matches: Matches,
    class_names: Sequence[str],
    iou: float = 0.5,
    beta: float = 1.0,
    rule: str = "raw",
    max_dets: int = MAX_DETS,
) -> dict[str, Any]:
    """The object of `thresholds.json`.

    The rule "raw" counts every detection, since a deployed model shows them all; "interpolated" keeps `max_dets` per
    image and class, as AP does.

    Args:
        matches: of a data set, at `iou` among other thresholds.
        class_names: label k -> name.
        iou: the overlap in (0, 1] from which a detection is true.
        beta: > 0; recall weighs beta times as much as precision.
        rule: "raw" or "interpolated".
        max_dets: see the rules.

    Returns:
        `{"iou", "beta", "classes": {name: {"threshold", "f_measure", "precision", "recall", "num_gt"}}}`. Where no
        threshold can be given the four figures are None and a "reason" is added.

    Raises:
        InputError: `beta` or `rule` is out of range, or two classes have the same name.
        ValueError: `matches` are not at `iou`.
    """
    if not 0 < beta < math.inf:
        raise InputError(f"TEST.THRESHOLD_BETA must be a positive number, not {beta}")
    if rule not in RULES:
        raise InputError(f"TEST.THRESHOLD_RULE must be one of {', '.join(RULES)}, not {rule!r}")
    best, limit = (best_threshold, math.inf) if rule == "raw" else (best_interpolated, max_dets)
    classes = {}
    for name, found in zip(unique_names(class_names), matches_per_class(matches, iou, limit), strict=True):
        classes[name] = _entry(best(found.scores, found.is_true, found.num_gt, beta), found)
    return {"iou": float(iou), "beta": float(beta), "classes": classes}


def best_threshold(scores: np.ndarray, is_true: np.ndarray, num_gt: int, beta: float = 1.0) -> OperatingPoint | None:
    """The threshold with the largest f-measure on the raw curve; the highest of those with equal f-measure.

    Args:
        scores: (D,), any order.
        is_true: (D,) bool, matched with ground truth.
        num_gt: boxes to be found.

    Returns:
        None if there are no boxes to be found or none was found.

    Example:
        >>> best_threshold(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), num_gt=2)
        OperatingPoint(threshold=0.7, f_measure=0.8, precision=0.6666666666666666, recall=1.0)
    """
    if num_gt == 0 or not np.any(is_true):
        return None
    order = np.argsort(-scores, kind="stable")
    scores, num_true = scores[order], np.cumsum(is_true[order])
    # Detections of equal score enter together, so that `score >= threshold` selects exactly the set that is measured.
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # last of each group of equal scores
    num_true, num_found = num_true[ends], ends + 1
    f_measure = (1 + beta**2) * num_true / (beta**2 * num_gt + num_found)
    best = int(np.argmax(f_measure))  # the first of equal ones, which has the highest score
    return OperatingPoint(
        threshold=float(scores[ends[best]]),
        f_measure=float(f_measure[best]),
        precision=float(num_true[best] / num_found[best]),
        recall=float(num_true[best] / num_gt),
    )


def matches_per_class(matches: Matches, iou: float, max_dets: float = math.inf) -> list[ClassMatches]:
    """True and false detections of each class at one IoU threshold, the best `max_dets` per image and class."""
    index = matches.threshold_index(iou)
    detections, ground_truth = matches.detections, matches.ground_truth
    is_true = detections.gt_rows[index] != NO_MATCH
    counted = ~detections.ignored[index] & (detections.ranks < max_dets)
    found = []
    per_label = (rows_per_label(boxes.labels, matches.num_classes) for boxes in (detections, ground_truth))
    for rows, gt_rows in zip(*per_label, strict=True):
        kept = rows[counted[rows]]
        num_ignored = int(ground_truth.ignored[gt_rows].sum())
        found.append(ClassMatches(detections.scores[kept], is_true[kept], len(gt_rows) - num_ignored, num_ignored))
    return found


def best_interpolated(scores: np.ndarray, is_true: np.ndarray, num_gt: int, beta: float = 1.0) -> OperatingPoint | None:
    """The point of the largest f-measure among COCO's recall points; the lowest recall of those with equal f-measure.

    The arithmetic is that of `COCOeval.accumulate`, operation by operation, so that the figures have the same bits.
    Arguments and None are those of `best_threshold`.
    """
    if num_gt == 0 or not np.any(is_true):
        return None
    order = np.argsort(-scores, kind="stable")
    scores, is_true = scores[order], is_true[order]
    num_true, num_false = np.cumsum(is_true).astype(float), np.cumsum(~is_true).astype(float)
    recall = num_true / num_gt
    precision = num_true / (num_false + num_true + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or beyond
    ends = np.searchsorted(recall, RECALL_POINTS, side="left")  # (R,) the first detection that reaches the recall
    precision_at = np.append(precision, 0.0)[ends]  # (R,) 0 where the recall is not reached
    denominator = beta**2 * precision_at + RECALL_POINTS
    # Where the precision is 0, so is the numerator; the denominator may be, too.
    f_measure = (1 + beta**2) * precision_at * RECALL_POINTS / np.where(precision_at > 0, denominator, 1.0)
    best = int(np.argmax(f_measure))
    if f_measure[best] <= 0:
        return None
    figures = scores[ends[best]], f_measure[best], precision_at[best], RECALL_POINTS[best]
    return OperatingPoint(*map(float, figures))


def _entry(point: OperatingPoint | None, found: ClassMatches) -> dict[str, Any]:
    if point is not None:
        return {**point._asdict(), "num_gt": found.num_gt}
    reason = NO_TRUE_DETECTION if found.num_gt else ONLY_CROWDS if found.num_ignored else NO_GROUND_TRUTH
    return {**dict.fromkeys(OperatingPoint._fields), "num_gt": found.num_gt, "reason": reason}
