"""Whether the last pixel of a box counts: the two conventions, met in one object that is built once and passed on.

A *continuous* box lives in [0, W] x [0, H]. The reference (maskrcnn-benchmark, ATSS) names the first and the last pixel
of a box, so that its width is x2 - x1 + 1. We store such a box as [x1, y1, x2 + 1, y2 + 1]; widths, areas and IoUs then
agree, and what remains of the difference is `extent`: the smallest side of a box, and the part of it that does not
scale.

Shapes: N boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PixelConvention:
    """What the sides of a stored box mean.

    Attributes:
        extent: 1.0 in the inclusive convention, 0.0 in the continuous one, pixels.
        anchor_rule: where anchors lie and how they are rounded, a key of `modeling.anchors.CELL_ANCHORS`.
    """

    extent: float
    anchor_rule: str

    @property
    def inset(self) -> float:
        """How far the reference's sides lie inside the stored ones when it measures distances from a point."""
        return self.extent / 2

    @property
    def has_whole_sizes(self) -> bool:
        """Sizes of anchors are whole pixels (torchvision)."""
        return self.anchor_rule == "torchvision"

    @property
    def stretches_anchors(self) -> bool:
        """Cells are as many pixels apart as the padded image has for each (torchvision), instead of a fixed stride."""
        return self.anchor_rule == "torchvision"

    def clip(self, boxes: Tensor, size: tuple[int, int] | tuple[Tensor, Tensor]) -> Tensor:
        """Boxes (N, 4) limited to an image of `size` (height, width); an inclusive one keeps at least one pixel.

        Height and width may be tensors that broadcast with the rows of boxes (..., 4), for images of several sizes.

        Example:
            >>> CONTINUOUS.clip(torch.tensor([[-3.0, 2.0, 5.0, 40.0]]), (10, 20)).tolist()
            [[0.0, 2.0, 5.0, 10.0]]
        """
        height, width = size
        x1 = boxes[..., 0].clamp(min=0).clamp(max=width - self.extent)
        y1 = boxes[..., 1].clamp(min=0).clamp(max=height - self.extent)
        x2 = boxes[..., 2].clamp(min=self.extent).clamp(max=width)
        y2 = boxes[..., 3].clamp(min=self.extent).clamp(max=height)
        return torch.stack([x1, y1, x2, y2], dim=-1)

    def scale(self, boxes: Tensor, ratio_xy: tuple[float, float]) -> Tensor:
        """Boxes (N, 4) after the image was scaled by `ratio_xy`; scaling by the reciprocals undoes it.

        The reference scales the first and the last pixel of a box, so there x2' = (x2 - 1) * ratio + 1 in our storage.

        Example:
            >>> CONTINUOUS.scale(torch.tensor([[1.0, 1.0, 3.0, 3.0]]), (2.0, 1.0)).tolist()
            [[2.0, 1.0, 6.0, 3.0]]
        """
        ratio_x, ratio_y = ratio_xy
        ratios = boxes.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])
        extent = boxes.new_tensor([0.0, 0.0, self.extent, self.extent])
        return (boxes - extent) * ratios + extent

    def without_last_pixel(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) that end where their last pixel begins, as the reference writes them."""
        return boxes - boxes.new_tensor([0.0, 0.0, self.extent, self.extent])


INCLUSIVE = PixelConvention(extent=1.0, anchor_rule="reference")
CONTINUOUS = PixelConvention(extent=0.0, anchor_rule="exact")
