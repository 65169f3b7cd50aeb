"""Non-maximum suppression class by class."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms

MANY_BOXES_CPU, MANY_BOXES_GPU = 4000, 20000
"""Above these numbers, classes are suppressed one after the other."""


def class_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float) -> Tensor:
    """Indices of the boxes that survive within their class, highest score first.

    A box is suppressed if its IoU with a better one of its class is larger than `iou_thresh`; with a threshold of 0 or
    less none is (reference). Classes are kept apart by an offset, which is added in float64 so that no IoU changes.

    Args:
        boxes: (N, 4) float, xyxy.
        scores: (N,) float.
        labels: (N,) int64.

    Returns:
        (D,) int64.
    """
    if boxes.numel() == 0 or iou_thresh <= 0:
        return scores.argsort(descending=True, stable=True)
    boxes, scores = boxes.double(), scores.double()
    if len(boxes) > (MANY_BOXES_CPU if boxes.device.type == "cpu" else MANY_BOXES_GPU):
        return _nms_by_class(boxes, scores, labels, iou_thresh)
    span = boxes.max() - boxes.min() + 1
    return nms(boxes + (labels * span)[:, None], scores, iou_thresh)


def _nms_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float) -> Tensor:
    """One call per class, since time (and memory on a GPU) grow with the square of the number of boxes in a call."""
    by_class = labels.argsort(stable=True)
    counts = labels.unique(return_counts=True)[1].tolist()
    kept = torch.cat([idx[nms(boxes[idx], scores[idx], iou_thresh)] for idx in by_class.split(counts)]).sort().values
    return kept[scores[kept].argsort(descending=True, stable=True)]


def keep_best(scores: Tensor, limit: int) -> Tensor:
    """Mask (N,) of the `limit` largest scores; ties with the last one stay, so that order never decides."""
    if limit <= 0 or len(scores) <= limit:
        return torch.ones_like(scores, dtype=torch.bool)
    cut = scores.kthvalue(len(scores) - limit + 1).values
    return scores >= cut
