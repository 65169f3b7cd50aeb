"""Element-wise losses; sums and normalisers belong to the callers.

Shapes: P rows, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import distance_box_iou_loss, generalized_box_iou_loss, sigmoid_focal_loss

from engine.structures import boxes as box_ops

LEAST_SIDE = 1e-3
"""Shorter sides count as this long in `ciou_loss`: the gradient of a ratio grows like 1 / side."""


def focal_loss_sum(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of the focal loss (Lin et al., 2017) over all rows and classes; stable for saturated logits.

    Args:
        logits: (..., K) float.
        labels: (...) int64; 0..K-1 positive, -1 negative for every class, -2 ignored.
        alpha: weight of the positive class, 1 - alpha of the negative.
        gamma: focusing power.

    Returns:
        Scalar; 0 with gradient when every row is ignored.
    """
    logits, labels = logits.flatten(0, -2), labels.flatten()
    counted = labels != -2
    classes = torch.arange(logits.shape[1], device=logits.device)
    one_hot = (labels[:, None] == classes).to(logits.dtype)  # (P, K)
    losses = sigmoid_focal_loss(logits, one_hot, alpha=alpha, gamma=gamma)
    return (losses * counted[:, None]).sum()


def giou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - generalized IoU (Rezatofighi et al., 2019) of boxes (P, 4) row by row: (P,) in [0, 2].

    A predicted box that is inside out counts as empty.
    """
    return generalized_box_iou_loss(box_ops.without_inversion(boxes), gt_boxes)


def diou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - distance IoU (Zheng et al., 2020, eq. 7) of boxes (P, 4) row by row: (P,) in [0, 2].

    1 - IoU + (distance of the centres / diagonal of the smallest box around both)^2. A predicted box that is inside
    out counts as empty.
    """
    return distance_box_iou_loss(box_ops.without_inversion(boxes), gt_boxes)


def ciou_loss(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """1 - complete IoU (Zheng et al., 2020, eq. 10 and 11) of boxes (P, 4) row by row: (P,) >= 0.

    `diou_loss` + alpha v, where v in [0, 1] is the squared difference of the angles of the diagonals, in right
    angles, and alpha = v / (1 - IoU + v) is a constant to the gradient. Finite for boxes without area.
    """
    boxes = box_ops.without_inversion(boxes)
    v = ((_angles(boxes) - _angles(gt_boxes)) * 2 / math.pi) ** 2  # (P,)
    with torch.no_grad():
        ious = box_ops.iou_of_rows(boxes, gt_boxes)
        alpha = v / (1 - ious + v).clamp(min=torch.finfo(v.dtype).tiny)  # 0 / 0 for equal boxes
    return distance_box_iou_loss(boxes, gt_boxes) + alpha * v


def _angles(boxes: Tensor) -> Tensor:
    """Between the diagonal of a box and its height, (P,) in radians."""
    widths, heights = (boxes[:, 2:] - boxes[:, :2]).clamp(min=LEAST_SIDE).unbind(dim=1)
    return torch.atan(widths / heights)
