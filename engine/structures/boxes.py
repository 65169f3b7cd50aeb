"""Pure functions on boxes: float32 (N, 4), xyxy, absolute pixels, continuous (width = x2 - x1).

Two conventions meet here. A *continuous* box lives in [0, W] x [0, H]. The reference (maskrcnn-benchmark, ATSS) names
the first and last pixel of a box, so that its width is x2 - x1 + 1. We store such a box as [x1, y1, x2 + 1, y2 + 1];
widths, areas and IoUs then agree, and what remains of the difference is one number, `pixel`: 1.0 in the inclusive
convention, 0.0 in the continuous one. It is the smallest extent of a box and the part of it that does not scale.

Shapes: N boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

INCLUSIVE, CONTINUOUS = 1.0, 0.0


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


def from_xywh(boxes_xywh: Tensor) -> Tensor:
    """COCO's (x, y, width, height) to xyxy; `to_xywh` is the inverse."""
    return torch.cat([boxes_xywh[..., :2], boxes_xywh[..., :2] + boxes_xywh[..., 2:]], dim=-1)


def to_xywh(boxes: Tensor) -> Tensor:
    """xyxy to COCO's (x, y, width, height); `from_xywh` is the inverse."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def clip(boxes: Tensor, size: tuple[int, int], pixel: float = CONTINUOUS) -> Tensor:
    """Boxes limited to an image of `size` (height, width); in the inclusive convention at least one pixel remains."""
    height, width = size
    x1 = boxes[..., 0].clamp(0, width - pixel)
    y1 = boxes[..., 1].clamp(0, height - pixel)
    x2 = boxes[..., 2].clamp(pixel, width)
    y2 = boxes[..., 3].clamp(pixel, height)
    return torch.stack([x1, y1, x2, y2], dim=-1)


def scale(boxes: Tensor, ratio_xy: tuple[float, float], pixel: float = CONTINUOUS) -> Tensor:
    """Boxes after the image was scaled by `ratio_xy`; scaling by the reciprocals undoes it.

    The reference scales the first and the last pixel of a box, so there x2' = (x2 - 1) * ratio + 1 in our storage.

    Example:
        >>> scale(torch.tensor([[1.0, 1.0, 3.0, 3.0]]), (2.0, 1.0)).tolist()
        [[2.0, 1.0, 6.0, 3.0]]
    """
    ratio_x, ratio_y = ratio_xy
    ratios = boxes.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])
    extent = boxes.new_tensor([0.0, 0.0, pixel, pixel])
    return (boxes - extent) * ratios + extent


def flip_horizontal(boxes: Tensor, width: int) -> Tensor:
    """Boxes in the mirrored image of `width`; its own inverse, in both conventions."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=-1)


def flip_vertical(boxes: Tensor, height: int) -> Tensor:
    """Boxes in the image of `height` turned upside down; its own inverse, in both conventions."""
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack([x1, height - y2, x2, height - y1], dim=-1)
