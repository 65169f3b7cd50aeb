"""Element-wise losses; sums and normalisers belong to the callers.

Shapes: P rows, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss


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
    boxes = torch.cat([boxes[:, :2], torch.maximum(boxes[:, :2], boxes[:, 2:])], dim=1)
    return generalized_box_iou_loss(boxes, gt_boxes)
