"""Scaling an image to a wanted length of its sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from engine.structures import PixelConvention, Targets


def resized_size(size: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """(height, width) scaled to a short side of `min_size`, or less where the long side would exceed `max_size`.

    Like in the reference, the long side is floored and a short side that `max_size` limits is rounded, except that the
    long side computed back from a rounded short side never exceeds `max_size`, and no side is 0.

    Example:
        >>> resized_size((480, 640), 800, 1333), resized_size((200, 1000), 800, 1333)
        ((800, 1066), (267, 1333))
    """
    height, width = size
    short, long = min(size), max(size)
    if long / short * min_size > max_size:
        min_size = int(round(max_size * short / long))
    new_short = max(min_size, 1)
    new_long = max(min(int(new_short * long / short), max_size), 1)
    return (new_short, new_long) if height <= width else (new_long, new_short)


def resize_pixels(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Image (3, H, W) scaled to `size` (height, width) by bilinear interpolation with antialiasing, like Pillow's."""
    return F.resize(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)


@dataclass
class Resize:
    """Scale the image to one of several short sides, all equally probable, see `resized_size`.

    Args:
        min_sizes: short sides to draw from, pixels.
        max_size: limit of the long side, pixels.
        convention: what the sides of boxes mean.
    """

    min_sizes: Sequence[int]
    max_size: int
    convention: PixelConvention

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        choice = int(torch.randint(len(self.min_sizes), ())) if len(self.min_sizes) > 1 else 0
        height, width = image.shape[-2:]
        size = resized_size((height, width), self.min_sizes[choice], self.max_size)
        corners, far_corners = targets.boxes.split(2, dim=1)
        # In the inclusive convention a box is at least one pixel wide; a narrower one would be inverted when scaled up.
        boxes = torch.cat([corners, torch.maximum(far_corners, corners + self.convention.extent)], dim=1)
        boxes = self.convention.scale(boxes, (size[1] / width, size[0] / height))
        return resize_pixels(image, size), replace(targets, boxes=boxes, size=size)
