"""Scaling an image to a wanted length of its sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from engine.data.resizing import resized_size
from engine.data.transforms.step import AUGMENTATIONS, Scene, integer, uniform
from engine.data.transforms.windows import crop
from engine.structures import INCLUSIVE, PixelConvention, Targets


def resize_pixels(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Image (C, H, W) scaled to `size` (height, width) by bilinear interpolation with antialiasing, like Pillow's."""
    if _is_grey(image):  # floats take eight times as long as bytes
        return resize_pixels(image[:1].contiguous(), size).repeat(3, 1, 1)
    return F.resize(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)


def _is_grey(image: Tensor) -> bool:
    """Whether the three channels of a deep image are equal, which is known in a tenth of the time of scaling it."""
    if len(image) != 3 or image.dtype != torch.float32 or image.device.type != "cpu":
        return False
    few = image[:, ::16, ::16]
    return all(torch.equal(each[0], each[k]) for each in (few, image) for k in (1, 2))


def scaled(
    image: Tensor, targets: Targets, size: tuple[int, int], convention: PixelConvention
) -> tuple[Tensor, Targets]:
    """Image and targets scaled to `size` (height, width)."""
    height, width = image.shape[-2:]
    corners, far_corners = targets.boxes.split(2, dim=1)
    # In the inclusive convention a box is at least one pixel wide; a narrower one would be inverted when scaled up.
    boxes = torch.cat([corners, torch.maximum(far_corners, corners + convention.extent)], dim=1)
    boxes = convention.scale(boxes, (size[1] / width, size[0] / height))
    return resize_pixels(image, size), replace(targets, boxes=boxes, size=size)


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
        return scaled(image, targets, size, self.convention)


@AUGMENTATIONS.register()
class MultiScale:
    """Scale to one of several short sides, the same one for all images of a batch, so that little is padded.

    It stands in place of the `Resize` of `INPUT.MIN_SIZE_TRAIN`.

    Args:
        min_sizes: short sides to draw from, pixels.
        max_size: limit of the long side, pixels.
        convention: what the sides of boxes mean.
    """

    needs_scene = True
    sets_size = True

    def __init__(self, min_sizes: Sequence[int], max_size: int = 1333, convention: PixelConvention = INCLUSIVE) -> None:
        self.min_sizes, self.max_size, self.convention = list(min_sizes), max_size, convention

    def __call__(self, image: Tensor, targets: Targets, scene: Scene) -> tuple[Tensor, Targets]:
        min_size = self.min_sizes[scene.of_batch(lambda: integer(0, len(self.min_sizes) - 1))]
        size = resized_size(tuple(image.shape[-2:]), min_size, self.max_size)
        return scaled(image, targets, size, self.convention)


@AUGMENTATIONS.register()
class LargeScaleJitter:
    """Scale by a factor drawn from a wide range, then cut a window of a fixed size (Ghiasi et al., 2021, section 3).

    Factor 1 is the size at which the image just fits into `size`. An image smaller than the window stays smaller: the
    batch is padded with zeros behind it, as every batch is. It stands in place of the `Resize` of
    `INPUT.MIN_SIZE_TRAIN`.

    Args:
        size: (height, width) of the window, pixels.
        scale: (low, high) of the factor.
        min_visibility: a box of which less remains becomes an ignore region.
        convention: what the sides of boxes mean.
    """

    sets_size = True

    def __init__(
        self,
        size: tuple[int, int],
        scale: tuple[float, float] = (0.1, 2.0),
        min_visibility: float = 0.25,
        convention: PixelConvention = INCLUSIVE,
    ) -> None:
        self.size, self.scale, self.min_visibility, self.convention = size, scale, min_visibility, convention

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        height, width = image.shape[-2:]
        factor = uniform(*self.scale) * min(self.size[0] / height, self.size[1] / width)
        size = max(round(height * factor), 1), max(round(width * factor), 1)
        image, targets = scaled(image, targets, size, self.convention)
        y, x = (integer(0, max(side - limit, 0)) for side, limit in zip(size, self.size, strict=True))
        window = (x, y, min(x + self.size[1], size[1]), min(y + self.size[0], size[0]))
        return crop(image, targets, window, self.min_visibility)
