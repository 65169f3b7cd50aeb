"""Pure functions on boxes: float32 (N, 4), xyxy, absolute pixels, continuous (width = x2 - x1).

Operations that depend on the pixel convention are methods of `PixelConvention`.

Shapes: N boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """Areas (N,) in square pixels.

    Example:
        >>> area(torch.tensor([[0.0, 0.0, 2.0, 3.0]])).tolist()
        [6.0]
    """
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def centers(boxes: Tensor) -> Tensor:
    """Centres (N, 2) as (x, y)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def iou_of_rows(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU (N,) of each of `boxes` (N, 4) with the one of `others` (N, 4) in its row; 0 where both are empty.

    Example:
        >>> iou_of_rows(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])).tolist()
        [0.3333333432674408]
    """
    sides = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    overlap = sides.clamp(min=0).prod(-1)
    union = area(boxes) + area(others) - overlap
    return torch.where(union > 0, overlap / union, 0.0)


def without_inversion(boxes: Tensor) -> Tensor:
    """`boxes` (N, 4) with those that are inside out made empty, so that no side or area is negative.

    Example:
        >>> without_inversion(torch.tensor([[4.0, 0.0, 2.0, 3.0]])).tolist()
        [[4.0, 0.0, 4.0, 3.0]]
    """
    return torch.cat([boxes[..., :2], torch.maximum(boxes[..., :2], boxes[..., 2:])], dim=-1)


def from_xywh(boxes_xywh: Tensor) -> Tensor:
    """COCO's (x, y, width, height) to xyxy; `to_xywh` is the inverse."""
    return torch.cat([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], dim=-1)


def to_xywh(boxes: Tensor) -> Tensor:
    """xyxy to COCO's (x, y, width, height); `from_xywh` is the inverse."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def flip_horizontal(boxes: Tensor, width: int) -> Tensor:
    """Boxes in the mirrored image of `width`; its own inverse, in both conventions."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=-1)


def flip_vertical(boxes: Tensor, height: int) -> Tensor:
    """Boxes in the image of `height` turned upside down; its own inverse, in both conventions."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack([x1, height - y2, x2, height - y1], dim=-1)
