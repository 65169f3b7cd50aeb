"""Per-class score thresholds that maximise the f-measure.

    f = (1 + beta^2) * precision * recall / (beta^2 * precision + recall)

The rule "raw" reads the precision-recall curve itself: what `score >= threshold` really gives on
this data set. The rule "interpolated" is the reference's: precision as COCO interpolates it (the
best at this recall or beyond) at 101 recall points, so its figures are not those of the threshold.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.cocoeval import COCOeval

from engine.errors import InputError
from engine.evaluation.coco import MAX_DETS, match, unique_names

RULES = ("raw", "interpolated")
NO_GROUND_TRUTH = "no ground truth"
ONLY_CROWDS = "only crowd ground truth"
NO_TRUE_DETECTION = "no detection matches ground truth"


class Operating(NamedTuple):
    """A point of the precision-recall curve: what `score >= threshold` gives."""

    threshold: float
    f_measure: float
    precision: float
    recall: float


class ClassMatches(NamedTuple):
    """Detections (D) of one class over a data set; those matched with a crowd are left out."""

    scores: np.ndarray  # (D,) float64
    is_true: np.ndarray  # (D,) bool
    num_gt: int
    num_crowd: int


def fmeasure_thresholds(
    coco_dict: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    category_ids: Sequence[int],
    iou: float = 0.5,
    beta: float = 1.0,
    rule: str = "raw",
) -> dict[str, Any]:
    """The object of `thresholds.json`.

    Detections are matched as for AP, at one IoU. The rule "raw" counts every detection, since a
    deployed model shows them all; "interpolated" keeps 100 an image and class, as AP does.

    Args:
        coco_dict, results, class_names, category_ids: as in `coco_metrics`.
        iou: overlap in (0, 1] from which a detection is true.
        beta: > 0; recall weighs beta times as much as precision.
        rule: "raw" or "interpolated".

    Returns:
        `{"iou", "beta", "classes": {name: {"threshold", "f_measure", "precision", "recall",
        "num_gt"}}}`. Where no threshold can be given the four figures are None and a "reason" is
        added.

    Raises:
        InputError: `iou`, `beta` or `rule` out of range, or results of another data set.
    """
    if not 0 < iou <= 1:
        raise InputError(f"TEST.THRESHOLD_IOU must be in (0, 1], is {iou}")
    if not 0 < beta < float("inf"):
        raise InputError(f"TEST.THRESHOLD_BETA must be a positive number, is {beta}")
    if rule not in RULES:
        raise InputError(f"threshold rule must be one of {', '.join(RULES)}, is {rule!r}")
    names = unique_names(class_names)
    max_dets = max(len(results), 1) if rule == "raw" else MAX_DETS[-1]
    evaluation = match(coco_dict, results, category_ids, [iou], [max_dets], all_areas=False)
    matches = class_matches(evaluation, len(names))
    if rule == "raw":
        points = [best_threshold(m.scores, m.is_true, m.num_gt, beta) for m in matches]
    else:
        points = _interpolated_thresholds(evaluation, beta)
    classes = {name: _entry(point, m) for name, point, m in zip(names, points, matches, strict=True)}
    return {"iou": float(iou), "beta": float(beta), "classes": classes}


def best_threshold(scores: np.ndarray, is_true: np.ndarray, num_gt: int, beta: float = 1.0) -> Operating | None:
    """The threshold with the largest f-measure on the raw curve; of equal ones the highest.

    Detections with the same score enter together, so that `score >= threshold` selects exactly the
    set measured.

    Args:
        scores: (D,), any order.
        is_true: (D,) bool, matched with ground truth.
        num_gt: boxes to be found.

    Returns:
        None when nothing is to be found or nothing was found.

    Example:
        >>> best_threshold(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]), num_gt=2)
        Operating(threshold=0.7, f_measure=0.8, precision=0.6666666666666666, recall=1.0)
    """
    if num_gt == 0 or not np.any(is_true):
        return None
    order = np.argsort(-scores, kind="stable")
    scores, num_true = scores[order], np.cumsum(is_true[order])
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # last of each group of ties
    num_true, num_found = num_true[ends], ends + 1
    f_measure = (1 + beta**2) * num_true / (beta**2 * num_gt + num_found)
    best = int(np.argmax(f_measure))
    return Operating(
        threshold=float(scores[ends[best]]),
        f_measure=float(f_measure[best]),
        precision=float(num_true[best] / num_found[best]),
        recall=float(num_true[best] / num_gt),
    )


def class_matches(evaluation: COCOeval, num_classes: int) -> list[ClassMatches]:
    """True and false detections of each class, from `match` at one IoU and one area range."""
    num_images = len(evaluation.params.imgIds)
    matches = []
    for k in range(num_classes):
        images = evaluation.evalImgs[k * num_images : (k + 1) * num_images]
        images = [image for image in images if image is not None]
        scores = _joined([image["dtScores"] for image in images], np.float64)
        is_true = _joined([image["dtMatches"][0] > 0 for image in images], bool)
        is_ignored = _joined([image["dtIgnore"][0] for image in images], bool)
        gt_ignored = _joined([image["gtIgnore"] for image in images], bool)
        matches.append(
            ClassMatches(
                scores=scores[~is_ignored],
                is_true=is_true[~is_ignored],
                num_gt=int((~gt_ignored).sum()),
                num_crowd=int(gt_ignored.sum()),
            )
        )
    return matches


def _interpolated_thresholds(evaluation: COCOeval, beta: float) -> list[Operating | None]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    recall = evaluation.params.recThrs  # (R,)
    points: list[Operating | None] = []
    for k in range(evaluation.eval["precision"].shape[2]):
        precision = evaluation.eval["precision"][0, :, k, 0, -1]  # (R,)
        scores = evaluation.eval["scores"][0, :, k, 0, -1]  # (R,)
        denominator = beta**2 * precision + recall
        f_measure = np.zeros_like(precision)
        np.divide((1 + beta**2) * precision * recall, denominator, out=f_measure, where=precision > 0)
        best = int(np.argmax(f_measure))
        if f_measure[best] <= 0:
            points.append(None)
            continue
        figures = scores[best], f_measure[best], precision[best], recall[best]
        points.append(Operating(*map(float, figures)))
    return points


def _entry(point: Operating | None, matches: ClassMatches) -> dict[str, Any]:
    if point is not None:
        return {**point._asdict(), "num_gt": matches.num_gt}
    reason = NO_GROUND_TRUTH
    if matches.num_gt:
        reason = NO_TRUE_DETECTION
    elif matches.num_crowd:
        reason = ONLY_CROWDS
    return {**dict.fromkeys(Operating._fields), "num_gt": matches.num_gt, "reason": reason}


def _joined(arrays: list[Any], dtype: type) -> np.ndarray:
    return np.concatenate([np.asarray(a, dtype=dtype) for a in arrays]) if arrays else np.zeros(0, dtype)
