"""Steps that change what a camera would see, and no boxes.

Pixels are uint8 or float32 in 0..255, BGR if there are three channels. Shapes: C channels, H W.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from engine.data.transforms.pixels import change_colors
from engine.data.transforms.step import AUGMENTATIONS, integer, uniform
from engine.data.transforms.windows import to_dtype
from engine.structures import Targets

_LONGEST_JPEG = 65_500
"""Pixels, of libjpeg."""


@AUGMENTATIONS.register()
@dataclass
class PhotometricDistortion:
    """Brightness, contrast, saturation and hue, each by a drawn amount, contrast before or after the colours (SSD).

    Saturation and hue are those of colours: without three channels they are left alone, and contrast is that of each
    channel.

    Args:
        brightness: pixels are multiplied by a factor from [1 - x, 1 + x].
        contrast: the same for their distance from the mean.
        saturation: the same for their distance from grey.
        hue: a shift from [-x, x], in turns of the colour circle.
    """

    brightness: float = 0.125
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.05

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        def factor(x: float) -> float:
            return uniform(max(1 - x, 0), 1 + x)

        brightness, contrast, saturation = factor(self.brightness), factor(self.contrast), factor(self.saturation)
        hue, is_contrast_first = uniform(-self.hue, self.hue), bool(torch.rand(()) < 0.5)
        changes = [("brightness", brightness)]
        if image.shape[0] == 3:
            changes += [("saturation", saturation), ("hue", hue)]
        changes.insert(1 if is_contrast_first else len(changes), ("contrast", contrast))
        return change_colors(image, changes), targets


@AUGMENTATIONS.register()
@dataclass
class Blur:
    """A Gaussian blur.

    Args:
        sigma: (low, high) of its standard deviation, pixels.
    """

    sigma: tuple[float, float] = (0.1, 2.0)

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        sigma = uniform(*self.sigma)
        # The border is mirrored, and an image has only so many pixels to mirror.
        kernel = [2 * min(math.ceil(3 * sigma), side - 1) + 1 for side in (image.shape[2], image.shape[1])]
        return F.gaussian_blur(image, kernel, [sigma, sigma]), targets


@AUGMENTATIONS.register()
@dataclass
class Noise:
    """Gaussian noise, independent in each pixel and channel.

    Args:
        sigma: (low, high) of its standard deviation, levels of 0..255.
    """

    sigma: tuple[float, float] = (2.0, 10.0)

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        noisy = image.to(torch.float32) + torch.randn(image.shape) * uniform(*self.sigma)
        return to_dtype(noisy.clamp(0, 255), image.dtype), targets


@AUGMENTATIONS.register("JPEG")
@dataclass
class Jpeg:
    """What compression as a JPEG leaves of the image; without three channels each is compressed as a grey image.

    An image longer than a JPEG can be stays as it is.

    Args:
        quality: (low, high) of the quality, 1 to 100.
    """

    quality: tuple[int, int] = (30, 90)

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        quality = integer(*self.quality)
        if max(image.shape) > _LONGEST_JPEG:
            return image, targets

        def coded(levels: np.ndarray) -> np.ndarray:
            data = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)

        pixels = image.permute(1, 2, 0).contiguous().numpy()  # (H, W, C)
        if pixels.shape[2] == 3:
            changed = in_bytes(pixels, coded)
        else:
            changed = np.stack([in_bytes(channel, coded) for channel in pixels.transpose(2, 0, 1)], axis=2)
        return torch.from_numpy(changed).permute(2, 0, 1), targets


@AUGMENTATIONS.register("CLAHE")
@dataclass
class Clahe:
    """Contrast limited adaptive histogram equalisation of the lightness, or of each channel if there are not three.

    Args:
        clip_limit: (low, high) of the limit: how much steeper than an even one a histogram may be.
        num_tiles: tiles along each side, each with its own histogram.
    """

    clip_limit: tuple[float, float] = (1.0, 4.0)
    num_tiles: int = 8

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        equalised = cv2.createCLAHE(uniform(*self.clip_limit), (self.num_tiles, self.num_tiles)).apply
        pixels = image.permute(1, 2, 0).contiguous().numpy()  # (H, W, C)
        if pixels.shape[2] == 3:
            is_float = pixels.dtype != np.uint8
            lab = cv2.cvtColor(pixels / np.float32(255) if is_float else pixels, cv2.COLOR_BGR2LAB)
            to_byte = np.float32(2.55) if is_float else 1  # of floats, lightness is in 0..100
            lab[..., 0] = in_bytes(lab[..., 0] * to_byte, equalised) / to_byte
            pixels = cv2.cvtColor(lab, cv2.COLOR_LAB2BGR)
            pixels = (pixels * np.float32(255)).clip(0, 255) if is_float else pixels
        else:
            pixels = np.stack([in_bytes(channel, equalised) for channel in pixels.transpose(2, 0, 1)], axis=2)
        return torch.from_numpy(pixels).permute(2, 0, 1), targets


def in_bytes(pixels: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`change`, which takes uint8, of pixels that are uint8 or float32 in 0..255.

    Floats are moved as far as their rounded values are, so that what lies between two levels is not lost.
    """
    if pixels.dtype == np.uint8:
        return change(np.ascontiguousarray(pixels))
    levels = pixels.round().clip(0, 255).astype(np.uint8)
    return (pixels + (change(levels).astype(np.float32) - levels)).clip(0, 255)
