"""Losses of region proposals, of the second stage and of the boxes of ATSS and RetinaNet, looked up by name.

Sums and normalisers belong to the callers.

A loss of your own is a function in this form, registered in a module that `IMPORTS` names.

Shapes: P boxes, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.layers.losses import ciou_loss, diou_loss, giou_loss
from engine.registry import Registry

CLS_LOSSES = Registry("CLS_LOSSES")
"""(logits (P, K + 1), labels (P,) in 0..K, K is the background) -> (P,)."""

BOX_LOSSES = Registry("BOX_LOSSES")
"""(deltas, gt_deltas, boxes, gt_boxes), each (P, 4) -> (P,): a loss compares the codes or the boxes they mean."""


@CLS_LOSSES.register("cross_entropy")
def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


@CLS_LOSSES.register("focal")
def focal(logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al., 2017) of the softmax: cross-entropy that fades out where the right class is sure.

    Args:
        alpha: weight of the foreground, 1 - alpha of the background.
        gamma: focusing power.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    weights = torch.where(labels < logits.shape[1] - 1, alpha, 1 - alpha)
    return weights * (1 - (-losses).exp()) ** gamma * losses


@BOX_LOSSES.register("smooth_l1")
def smooth_l1(deltas: Tensor, gt_deltas: Tensor, boxes: Tensor, gt_boxes: Tensor, beta: float = 1.0) -> Tensor:
    """Square below an error of `beta`, straight above (Girshick, 2015)."""
    return F.smooth_l1_loss(deltas, gt_deltas, beta=beta, reduction="none").sum(dim=1)


@BOX_LOSSES.register("l1")
def l1(deltas: Tensor, gt_deltas: Tensor, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    return (deltas - gt_deltas).abs().sum(dim=1)


@BOX_LOSSES.register("giou")
def giou(deltas: Tensor, gt_deltas: Tensor, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    return giou_loss(boxes, gt_boxes)


@BOX_LOSSES.register("diou")
def diou(deltas: Tensor, gt_deltas: Tensor, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """`diou_loss` of the boxes."""
    return diou_loss(boxes, gt_boxes)


@BOX_LOSSES.register("ciou")
def ciou(deltas: Tensor, gt_deltas: Tensor, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """`ciou_loss` of the boxes."""
    return ciou_loss(boxes, gt_boxes)
