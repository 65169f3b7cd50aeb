"""Transforms from an image as read to the input of the model, applied to the boxes as well.

A transform is a callable `(image, targets) -> (image, targets)` on a BGR uint8 tensor (3, H, W); `Normalize` ends the
chain with a float tensor. Random transforms draw from torch's default generator, like those of
`torchvision.transforms.v2`, which can therefore stand in the same chain; `random_state` makes what they draw a function
of a key.

Pixels are transformed by torchvision.transforms.v2, boxes by `box_ops`, since tv_tensors have no inclusive-pixel
convention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from engine.structures import INCLUSIVE, PixelConvention, Targets
from engine.structures import boxes as box_ops

Step = Callable[[Tensor, Targets], tuple[Tensor, Targets]]


@contextmanager
def random_state(*key: int) -> Iterator[None]:
    """Seed torch's CPU generator with `key` (integers >= 0) inside the block, and restore its state afterwards."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(int(seed))
        yield


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


@dataclass
class RandomHorizontalFlip:
    """Swap left and right with probability `prob`."""

    prob: float

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        if torch.rand(()) >= self.prob:
            return image, targets
        boxes = box_ops.flip_horizontal(targets.boxes, image.shape[-1])
        return F.horizontal_flip(image), replace(targets, boxes=boxes)


@dataclass
class RandomVerticalFlip:
    """Swap top and bottom with probability `prob`."""

    prob: float

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        if torch.rand(()) >= self.prob:
            return image, targets
        boxes = box_ops.flip_vertical(targets.boxes, image.shape[-2])
        return F.vertical_flip(image), replace(targets, boxes=boxes)


class ColorJitter:
    """`torchvision.transforms.v2.ColorJitter` on a BGR image."""

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        self.jitter = v2.ColorJitter(brightness, contrast, saturation, hue)

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        return self.jitter(image.flip(0)).flip(0), targets


class Normalize:
    """(image - mean) / std in float32, of a BGR uint8 image.

    Args:
        mean, std: one per channel, in the channel order and range of the output.
        to_bgr255: output BGR in the range 0..255, like the reference; otherwise RGB in 0..1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], to_bgr255: bool) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(3, 1, 1)
        self.to_bgr255 = to_bgr255

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        return self.pixels(image), targets

    def pixels(self, image: Tensor) -> Tensor:
        """The normalised image, on the device of `image`."""
        if not self.to_bgr255:
            image = image.flip(0)
        # Reorder the memory while the values are bytes: floats would be four times as much to move.
        pixels = image.contiguous().to(torch.float32)
        if not self.to_bgr255:
            pixels /= 255.0
        pixels -= self.mean.to(pixels.device)
        if (self.std != 1).any():
            pixels /= self.std.to(pixels.device)
        return pixels


class Transform:
    """A chain of transforms for an image as read.

    Call it with a BGR uint8 array (H, W, 3) and its targets; it returns a float32 tensor (3, H', W') and the targets in
    its pixels. Without targets (an image to predict on) it returns None in their place.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.steps = list(steps)

    def __call__(self, image: np.ndarray, targets: Targets | None = None) -> tuple[Tensor, Targets | None]:
        tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)  # (3, H, W), no copy
        current = Targets.empty(image_id=-1, size=image.shape[:2]) if targets is None else targets
        for step in self.steps:
            tensor, current = step(tensor, current)
        return tensor, None if targets is None else current


def train_transform(
    min_sizes: Sequence[int],
    max_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    to_bgr255: bool = True,
    horizontal_flip: float = 0.5,
    vertical_flip: float = 0.0,
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    convention: PixelConvention = INCLUSIVE,
) -> Transform:
    """Resize, flip, jitter and normalise; `jitter` is (brightness, contrast, saturation, hue), all 0 for none."""
    steps: list[Step] = [Resize(min_sizes, max_size, convention)]
    if horizontal_flip > 0:
        steps.append(RandomHorizontalFlip(horizontal_flip))
    if vertical_flip > 0:
        steps.append(RandomVerticalFlip(vertical_flip))
    if any(jitter):
        steps.append(ColorJitter(*jitter))
    steps.append(Normalize(mean, std, to_bgr255))
    return Transform(steps)


def test_transform(
    min_size: int,
    max_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    to_bgr255: bool = True,
    convention: PixelConvention = INCLUSIVE,
) -> Transform:
    """Resize and normalise; nothing is random."""
    return Transform([Resize([min_size], max_size, convention), Normalize(mean, std, to_bgr255)])
