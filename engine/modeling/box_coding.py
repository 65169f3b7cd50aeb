"""How a head's four numbers mean a box: `encode_x` and its inverse `decode_x` stand side by side.

The law: decode(encode(boxes, anchors), anchors) == boxes, for boxes no more than 62.5 times their anchor's size.

Shapes: P rows of boxes, anchors and codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MAX_LOG_RATIO = math.log(1000 / 16)
"""Limit of dw and dh in decoding: beyond it exp() would overflow (Girshick et al., Detectron). mmdetection limits -dw
and -dh, too: its boxes are never narrower than 1.6 % of their anchor."""


def encode_deltas(boxes: Tensor, anchors: Tensor, weights: Sequence[float]) -> Tensor:
    """(dx, dy, dw, dh) (P, 4) of `boxes` relative to `anchors`, times `weights` (Girshick et al., 2014, eq. 6-9)."""
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    box_sizes = boxes[:, 2:] - boxes[:, :2]
    shifts = (boxes[:, :2] + box_sizes / 2 - anchors[:, :2] - anchor_sizes / 2) / anchor_sizes
    return torch.cat([shifts, torch.log(box_sizes / anchor_sizes)], dim=1) * boxes.new_tensor(weights)


def decode_deltas(
    deltas: Tensor, anchors: Tensor, weights: Sequence[float], min_log_ratio: float | None = None
) -> Tensor:
    """Boxes (P, 4) that `deltas` (P, 4) mean relative to `anchors`; inverse of `encode_deltas`.

    Args:
        min_log_ratio: lower limit of dw and dh, None for none; the upper one is MAX_LOG_RATIO.
    """
    deltas = deltas / deltas.new_tensor(weights)
    anchor_sizes = anchors[:, 2:] - anchors[:, :2]
    centers = deltas[:, :2] * anchor_sizes + anchors[:, :2] + anchor_sizes / 2
    half_sizes = deltas[:, 2:].clamp(min_log_ratio, MAX_LOG_RATIO).exp() * anchor_sizes / 2
    return torch.cat([centers - half_sizes, centers + half_sizes], dim=1)


def encode_distances(boxes: Tensor, anchors: Tensor, unit: float, inset: float = 0.0) -> Tensor:
    """Distances (left, top, right, bottom) (P, 4) from the anchors' centres to the sides of `boxes` (FCOS, eq. 1).

    Args:
        unit: pixels in one unit of distance for an anchor one pixel wide: the distance is divided by width / unit.
        inset: half a pixel in the inclusive convention, where the last pixel's far side is not part of the box.
    """
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    step = (anchors[:, 2:3] - anchors[:, 0:1]) / unit
    return torch.cat([centers - boxes[:, :2] - inset, boxes[:, 2:] - inset - centers], dim=1) / step


def decode_distances(distances: Tensor, anchors: Tensor, unit: float, inset: float = 0.0) -> Tensor:
    """Boxes (P, 4) that `distances` (P, 4) mean; inverse of `encode_distances`."""
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    distances = distances * (anchors[:, 2:3] - anchors[:, 0:1]) / unit + inset
    return torch.cat([centers - distances[:, :2], centers + distances[:, 2:]], dim=1)
