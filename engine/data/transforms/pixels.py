"""Changes of pixel values; boxes stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from engine.data.transforms import colors
from engine.structures import Targets


def in_rgb(image: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` of an image as torchvision takes it: RGB, or else each channel a grey image; floats are in 0..1."""
    pixels = image.flip(0) if image.shape[0] == 3 else image[:, None]  # (3, H, W) or (C, 1, H, W)
    pixels = change(pixels if image.dtype == torch.uint8 else pixels / 255)
    pixels = pixels if image.dtype == torch.uint8 else pixels * 255
    return pixels.flip(0) if image.shape[0] == 3 else pixels[:, 0]


def change_colors(image: Tensor, changes: Sequence[tuple[str, float]]) -> Tensor:
    """`image` after `changes` in their order, each "brightness", "contrast", "saturation" or "hue" and its factor.

    They are those of `torchvision.transforms.v2.functional.adjust_...`. Saturation and hue are of three channels.
    """
    if image.shape[0] == 3 and image.dtype == torch.uint8 and image.device.type == "cpu":
        planes = [each.contiguous() for each in reversed(planes_of(image))]  # red, green, blue
        for name, factor in changes:
            planes = colors.CHANGES[name](planes, factor)
        return torch.stack(planes[::-1])

    def change(pixels: Tensor) -> Tensor:
        for name, factor in changes:
            pixels = getattr(F, f"adjust_{name}")(pixels, factor)
        return pixels

    return in_rgb(image, change)


class ColorJitter:
    """`torchvision.transforms.v2.ColorJitter`; without three channels only brightness and contrast change."""

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        jitter = v2.ColorJitter(brightness, contrast, saturation, hue)
        self.limits = [(name, getattr(jitter, name)) for name in ("brightness", "contrast", "saturation", "hue")]

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        # Drawn in torchvision's order, so that the same seed gives the same images.
        order = torch.randperm(len(self.limits)).tolist()
        drawn = [(name, float(torch.empty(1).uniform_(*each))) if each else None for name, each in self.limits]
        return change_colors(image, [change for number in order if (change := drawn[number])]), targets


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
        result = torch.empty(image.shape, dtype=torch.float32, device=image.device)
        self.write(result, image)
        return result

    def write(self, place: Tensor, image: Tensor) -> None:
        """Write the normalised image to `place`, float32 (C, H, W) of any strides."""
        planes = planes_of(image)
        for channel, index in zip(place, self.channel_order(len(planes)), strict=True):
            channel.copy_(planes[index])
        if not self.to_bgr255:
            place /= 255.0
        place -= self.mean.to(place.device)
        if (self.std != 1).any():
            place /= self.std.to(place.device)

    def undo(self, pixels: Tensor) -> Tensor:
        """The image in 0..255 of a normalised one, as float32; `pixels` of it are the same again but for rounding."""
        image = pixels * self.std.to(pixels.device) + self.mean.to(pixels.device)
        return image if self.to_bgr255 else (image * 255.0)[self.channel_order(len(image))]

    def channel_order(self, num_channels: int) -> list[int]:
        """Which channel of the image stands at each place of the output, and the other way round."""
        swapped = not self.to_bgr255 and num_channels in (3, 4)
        return [2, 1, 0, 3][:num_channels] if swapped else list(range(num_channels))


def planes_of(image: Tensor) -> list[Tensor]:
    """The channels (H, W) of an image (C, H, W)."""
    interleaved = image.permute(1, 2, 0)
    if image.dtype == torch.uint8 and image.device.type == "cpu" and interleaved.is_contiguous():
        # As read. OpenCV takes them apart several times as fast as strided copies do.
        return [torch.from_numpy(plane) for plane in cv2.split(interleaved.numpy())]
    return list(image)
