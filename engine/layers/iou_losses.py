"""Losses of side distances (left, top, right, bottom) by overlap, looked up by name (`MODEL.FCOS.IOU_LOSS_TYPE`).

Both boxes of a row contain the point that the distances start from, so that they overlap.

Shapes: P rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.layers.losses import ciou_loss, diou_loss
from engine.registry import Registry

SMOOTHING = 1.0
"""Added to both areas of an IoU, in squared units of distance (reference, after UnitBox)."""
EPSILON = 1e-7

IOU_LOSSES = Registry("IOU_LOSSES")


@IOU_LOSSES.register("iou")
def iou(distances: Tensor, gt_distances: Tensor, smoothing: float = SMOOTHING) -> Tensor:
    """-log IoU (P,) (Yu et al., 2016)."""
    overlap, union, _ = _areas(distances, gt_distances)
    return -torch.log((overlap + smoothing) / (union + smoothing))


@IOU_LOSSES.register("linear_iou")
def linear_iou(distances: Tensor, gt_distances: Tensor, smoothing: float = SMOOTHING) -> Tensor:
    """1 - IoU (P,)."""
    overlap, union, _ = _areas(distances, gt_distances)
    return 1 - (overlap + smoothing) / (union + smoothing)


@IOU_LOSSES.register("giou")
def giou(distances: Tensor, gt_distances: Tensor, smoothing: float = SMOOTHING) -> Tensor:
    """1 - generalized IoU (P,) in [0, 2] (Rezatofighi et al., 2019)."""
    overlap, union, hull = _areas(distances, gt_distances)
    hull = hull + EPSILON
    return 1 - (overlap + smoothing) / (union + smoothing) + (hull - union) / hull


@IOU_LOSSES.register("diou")
def diou(distances: Tensor, gt_distances: Tensor) -> Tensor:
    """`diou_loss` (P,) of the boxes around the point."""
    return diou_loss(_around_origin(distances), _around_origin(gt_distances))


@IOU_LOSSES.register("ciou")
def ciou(distances: Tensor, gt_distances: Tensor) -> Tensor:
    """`ciou_loss` (P,) of the boxes around the point."""
    return ciou_loss(_around_origin(distances), _around_origin(gt_distances))


def _around_origin(distances: Tensor) -> Tensor:
    """Boxes (P, 4), xyxy, with the point at the origin."""
    return torch.cat([-distances[:, :2], distances[:, 2:]], dim=1)


def _areas(distances: Tensor, gt_distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Intersection, union and smallest enclosing box, (P,) each."""
    overlap = _area(torch.minimum(distances, gt_distances))
    union = _area(distances) + _area(gt_distances) - overlap
    return overlap, union, _area(torch.maximum(distances, gt_distances))


def _area(distances: Tensor) -> Tensor:
    return (distances[:, 0] + distances[:, 2]) * (distances[:, 1] + distances[:, 3])
