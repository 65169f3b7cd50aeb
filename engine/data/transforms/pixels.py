"""Changes of pixel values; boxes stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2

from engine.structures import Targets


def in_rgb(image: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` of an image as torchvision takes it: RGB, or else each channel a grey image; floats are in 0..1."""
    pixels = image.flip(0) if image.shape[0] == 3 else image[:, None]  # (3, H, W) or (C, 1, H, W)
    pixels = change(pixels if image.dtype == torch.uint8 else pixels / 255)
    pixels = pixels if image.dtype == torch.uint8 else pixels * 255
    return pixels.flip(0) if image.shape[0] == 3 else pixels[:, 0]


class ColorJitter:
    """`torchvision.transforms.v2.ColorJitter`; without three channels only brightness and contrast change."""

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        self.jitter = v2.ColorJitter(brightness, contrast, saturation, hue)

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        return in_rgb(image, self.jitter), targets


class Normalize:
    """(image - mean) / std in float32, of a BGR image in 0..255, uint8 or float32.

    Args:
        mean, std: one per channel, in the channel order and range of the output.
        to_bgr255: output BGR in the range 0..255, like the reference; otherwise RGB in 0..1. Of four channels the first
            three are the colours; any other number keeps its order.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], to_bgr255: bool) -> None:
        self.mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
        self.to_bgr255 = to_bgr255

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        return self.pixels(image), targets

    def pixels(self, image: Tensor) -> Tensor:
        """The normalised image, on the device of `image`."""
        if not self.to_bgr255 and len(image) in (3, 4):
            image = image.flip(0) if len(image) == 3 else image[[2, 1, 0, 3]]
        # Reorder the memory while the values are bytes: floats would be four times as much to move.
        pixels = image.contiguous().to(torch.float32) if image.dtype == torch.uint8 else _copied(image)
        if not self.to_bgr255:
            pixels /= 255.0
        pixels -= self.mean.to(pixels.device)
        if (self.std != 1).any():
            pixels /= self.std.to(pixels.device)
        return pixels

    def undo(self, pixels: Tensor) -> Tensor:
        """The image in 0..255 of a normalised one, as float32; `pixels` of it are the same again but for rounding."""
        image = pixels * self.std.to(pixels.device) + self.mean.to(pixels.device)
        return image if self.to_bgr255 else (image * 255.0).flip(0)


def _copied(image: Tensor) -> Tensor:
    return image.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
