"""How the numbers that a head predicts stand for a box: `encode` and its inverse `decode` side by side.

The law: decode(encode(boxes, anchors), anchors) == boxes, for boxes no more than 62.5 times their anchor's size.

Shapes: P rows of boxes, anchors and codes, D numbers of a code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

MAX_LOG_RATIO = math.log(1000 / 16)
"""Limit of dw and dh in decoding: beyond it exp() would overflow (Girshick et al., Detectron). mmdetection limits -dw
and -dh, too: its boxes are never narrower than 1.6 % of their anchor."""


class BoxCoder(Protocol):
    """What a stage needs to know of the numbers that its head predicts."""

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Codes (P, D) that stand for `boxes` (P, 4) on `anchors` (P, 4)."""
        ...

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (P, 4) that `codes` (P, D) stand for; the inverse of `encode`."""
        ...


@dataclass(frozen=True)
class DeltaCoder:
    """(dx, dy, dw, dh): the shift of the centre and the logarithm of the size, relative to the anchor.

    Attributes:
        weights: factors of (dx, dy, dw, dh).
        min_log_ratio: lower limit of dw and dh in decoding, None for none; the upper one is MAX_LOG_RATIO.
    """

    weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0)
    min_log_ratio: float | None = None

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Deltas (P, 4) (Girshick et al., 2014, eq. 6-9)."""
        anchor_sizes = anchors[:, 2:] - anchors[:, :2]
        box_sizes = boxes[:, 2:] - boxes[:, :2]
        shifts = (boxes[:, :2] + box_sizes / 2 - anchors[:, :2] - anchor_sizes / 2) / anchor_sizes
        return torch.cat([shifts, torch.log(box_sizes / anchor_sizes)], dim=1) * boxes.new_tensor(self.weights)

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        deltas = codes / codes.new_tensor(self.weights)
        anchor_sizes = anchors[:, 2:] - anchors[:, :2]
        centers = deltas[:, :2] * anchor_sizes + anchors[:, :2] + anchor_sizes / 2
        half_sizes = deltas[:, 2:].clamp(self.min_log_ratio, MAX_LOG_RATIO).exp() * anchor_sizes / 2
        return torch.cat([centers - half_sizes, centers + half_sizes], dim=1)


@dataclass(frozen=True)
class DistanceCoder:
    """Distances (left, top, right, bottom) from the anchor's centre to the sides of the box (FCOS, eq. 1).

    Attributes:
        unit: pixels in one unit of distance for an anchor one pixel wide: the distance is divided by width / unit.
        inset: half a pixel in the inclusive convention, where the last pixel's far side is not part of the box.
    """

    unit: float = 1.0
    inset: float = 0.0

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        centers = (anchors[:, :2] + anchors[:, 2:]) / 2
        step = (anchors[:, 2:3] - anchors[:, 0:1]) / self.unit
        return torch.cat([centers - boxes[:, :2] - self.inset, boxes[:, 2:] - self.inset - centers], dim=1) / step

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        centers = (anchors[:, :2] + anchors[:, 2:]) / 2
        distances = codes * (anchors[:, 2:3] - anchors[:, 0:1]) / self.unit + self.inset
        return torch.cat([centers - distances[:, :2], centers + distances[:, 2:]], dim=1)


@dataclass(frozen=True)
class DistributionCoder:
    """Logits of a distribution over the distances 0, 1, ..., `limit` for each side, whose mean counts (GFL, eq. 5).

    Codes are (P, 4 * (limit + 1)), side-major: left, top, right, bottom. The law holds for boxes whose sides lie no
    more than `limit` units from the anchor's centre; farther sides are encoded as `limit`, those beyond it as 0.

    Attributes:
        limit: the largest distance.
        unit, inset: see `DistanceCoder`.
    """

    limit: int = 16
    unit: float = 1.0
    inset: float = 0.0

    @property
    def num_bins(self) -> int:
        """Logits per side."""
        return self.limit + 1

    @property
    def distances(self) -> DistanceCoder:
        """The coder of the means."""
        return DistanceCoder(self.unit, self.inset)

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Logits of which only the two bins next to each distance are finite (one bin for a whole distance)."""
        distances = self.distances.encode(boxes, anchors).clamp(0, self.limit)  # (P, 4)
        bins = torch.arange(self.num_bins, device=boxes.device, dtype=boxes.dtype)
        nearness = (1 - (distances[..., None] - bins).abs()).clamp(min=0)  # (P, 4, limit + 1)
        return nearness.log().flatten(1)

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        return self.distances.decode(self.means(codes), anchors)

    def means(self, codes: Tensor) -> Tensor:
        """Distances (P, 4) in units, each in [0, limit]."""
        shares = codes.reshape(codes.shape[0], 4, self.num_bins).softmax(dim=-1)
        # No matrix product, which autocast would round to bfloat16.
        return (shares * torch.arange(self.num_bins, device=codes.device, dtype=codes.dtype)).sum(dim=-1)


@dataclass(frozen=True)
class BoxAsCode:
    """The box itself, for heads that decode their predictions because they work on with the boxes (TOOD)."""

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        return boxes

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        return codes
