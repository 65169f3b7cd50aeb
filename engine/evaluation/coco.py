"""The figures of COCO, computed by pycocotools.

Shapes: K classes, T IoU thresholds, R recall points, A area ranges, L limits on detections.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from engine.data.annotations import AnnotationTable, CategoryId
from engine.errors import InputError, shown
from engine.evaluation.cocoeval import run_cocoeval

AREAS = {"s": 1, "m": 2, "l": 3}  # suffix of a figure -> index of pycocotools' area range; 0 is all areas
AR_LIMITS = (1, 10, 100)  # detections per image and class that AR1, AR10 and AR100 see
MAX_DETS = 100  # those that all other figures see, unless told otherwise


def coco_metrics(
    annotations: AnnotationTable,
    results: Sequence[Mapping[str, Any]],
    class_names: Sequence[str],
    category_ids: Sequence[CategoryId],
    max_dets: int = MAX_DETS,
) -> dict[str, dict[str, Any]]:
    """The object of `metrics.json`.

    Args:
        annotations: of the data set.
        results: COCO result entries; no entries give an AP of 0 wherever there is ground truth.
        class_names: label k -> name.
        category_ids: label k -> category id.
        max_dets: detections per image and class that all figures see except AR1, AR10 and AR100; if it is another
            number than these, there is an AR of that number too.

    Returns:
        `{"bbox": {"AP", "AP50", ...}, "per_class": {name: {"AP", ..., "num_gt"}}}`, fractions in [0, 1], -1 where there
        is no ground truth; `num_gt` counts boxes that are not crowds.

    Raises:
        InputError: two classes have the same name, or a result names an image or category that the annotations do not
            have.
    """
    names = unique_names(class_names)
    limits = sorted({*AR_LIMITS, max_dets})
    evaluation, ground_truth, _ = run_cocoeval(annotations, results, category_ids, limits)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    num_gt = np.bincount(ground_truth.labels[~ground_truth.crowd], minlength=len(category_ids)).tolist()
    at = limits.index(max_dets)
    figures = [_figures(evaluation, slice(k, k + 1), at) for k in range(len(names))]
    per_class = {name: {**figures[k], "num_gt": num_gt[k]} for k, name in enumerate(names)}
    return {"bbox": _figures(evaluation, slice(None), at), "per_class": per_class}


def unique_names(class_names: Sequence[str]) -> Sequence[str]:
    """`class_names`, checked to be different, since they are keys of the files we write.

    Raises:
        InputError: two classes have the same name.
    """
    repeated = sorted({name for name in class_names if class_names.count(name) > 1})
    if repeated:
        raise InputError(
            f"class name {shown(repeated[0])} stands for several categories; rename one in the annotation file"
        )
    return class_names


def _figures(evaluation: COCOeval, classes: slice, at: int) -> dict[str, float]:
    """The twelve figures of `COCOeval.summarize` over some classes; index `at` along L is the limit of most of them."""
    precision = evaluation.eval["precision"][:, :, classes]  # (T, R, K, A, L)
    recall = evaluation.eval["recall"][:, classes]  # (T, K, A, L)
    iou_thresholds = evaluation.params.iouThrs
    # isclose: pycocotools computes its thresholds, so 0.75 need not be exact
    at_50, at_75 = (np.isclose(iou_thresholds, iou) for iou in (0.5, 0.75))
    figures = {
        "AP": _mean(precision[..., 0, at]),
        "AP50": _mean(precision[at_50][..., 0, at]),
        "AP75": _mean(precision[at_75][..., 0, at]),
    }
    figures |= {f"AP{s}": _mean(precision[..., a, at]) for s, a in AREAS.items()}
    figures |= {f"AR{limit}": _mean(recall[..., 0, index]) for index, limit in enumerate(evaluation.params.maxDets)}
    return figures | {f"AR{s}": _mean(recall[..., a, at]) for s, a in AREAS.items()}


def _mean(values: np.ndarray) -> float:
    """Mean of the defined values; -1 (pycocotools' "undefined") when there are none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
