"""Which anchor learns which box, by how well the head already predicts it (TOOD, Feng et al., 2021, section 3.2).

Shapes: R anchors per image, M gt boxes, P positives, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.modeling.anchors import AnchorGrid
from engine.modeling.assign import (
    ASSIGNERS,
    CENTER_MARGIN,
    ImagePredictions,
    all_negative,
    chunks,
    resolve_conflicts,
    side_distances,
)
from engine.structures import boxes as box_ops

EPSILON = 1e-7
"""Added to the largest metric of a box before it divides (the authors' code)."""


@dataclass(frozen=True)
class Alignment:
    """How well classification and localisation agree: score^alpha * IoU^beta (eq. 4), in [0, 1].

    Attributes:
        alpha: exponent of the score.
        beta: exponent of the IoU.
    """

    alpha: float = 1.0
    beta: float = 6.0

    def __call__(self, scores: Tensor, ious: Tensor) -> Tensor:
        """`scores` and `ious` in [0, 1] of equal shapes -> metric."""
        return scores.pow(self.alpha) * ious.pow(self.beta)


@ASSIGNERS.register("task_aligned")
def assign_task_aligned(
    anchors: AnchorGrid,
    gt_boxes: Tensor,
    predictions: ImagePredictions | None = None,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
) -> Tensor:
    """Task-aligned assignment.

    The `topk` anchors of largest `Alignment` with a box, over all levels, are its candidates. Those whose metric is
    above 0 and whose centre lies in the box are positive; an anchor wanted by several boxes goes to the one that its
    predicted box overlaps most. Without predictions the anchors stand for the predicted boxes, with scores of 1.
    """
    if len(gt_boxes) == 0:
        return all_negative(anchors)
    align = Alignment(alpha, beta)
    boxes = anchors.boxes if predictions is None else box_ops.without_inversion(predictions.boxes)
    found = []
    for chunk in chunks(len(boxes), len(gt_boxes)):
        ious = box_ops.iou_of_rows(gt_boxes[chunk][:, None], boxes)  # (m, R)
        scores = torch.ones_like(ious)
        if predictions is not None:
            scores = predictions.logits[:, predictions.gt_labels[chunk]].sigmoid().T  # (m, R)
        metrics, best = align(scores, ious).topk(min(topk, len(boxes)), dim=1)  # (m, topk)
        centers = box_ops.centers(anchors.boxes[best])  # (m, topk, 2)
        sides = side_distances(centers, gt_boxes[chunk][:, None], anchors.convention.inset)
        is_positive = (metrics > 0) & (sides.amin(-1) > CENTER_MARGIN)
        gt_idx = is_positive.nonzero(as_tuple=True)[0] + chunk.start
        found.append((best[is_positive], gt_idx, ious.gather(1, best)[is_positive]))
    return resolve_conflicts(anchors, *(torch.cat(parts) for parts in zip(*found, strict=True)))


def aligned_quality(metrics: Tensor, ious: Tensor, gt_idx: Tensor, num_gt: int) -> Tensor:
    """The score that each positive anchor learns (section 3.2.2): (P,) in [0, 1].

    The metrics of a box's anchors are scaled so that their largest equals the largest IoU among them.

    Args:
        metrics: (P,) `Alignment` of each positive with its box.
        ious: (P,) of the predicted box with it.
        gt_idx: (P,) int64 in 0..num_gt-1, the box.
        num_gt: M.
    """
    largest_metric = metrics.new_zeros(num_gt).scatter_reduce(0, gt_idx, metrics, "amax")  # (M,)
    largest_iou = ious.new_zeros(num_gt).scatter_reduce(0, gt_idx, ious, "amax")
    return metrics / (largest_metric[gt_idx] + EPSILON) * largest_iou[gt_idx]
