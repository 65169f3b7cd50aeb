"""Brightness, contrast, saturation and hue of bytes: the bits of `torchvision.transforms.v2.functional`, faster.

What torchvision computes of each pixel in float32 with tensors as large as the image is looked up in a table of 256
values here, or computed in blocks that stay in the cache, without its slow gather by colour sextant. The order of the
operations is its own, so the results are equal to the last bit.

An image is its planes, a list [red, green, blue] of contiguous uint8 tensors (H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

Planes = list[Tensor]

_BLOCK = 1 << 15
"""Pixels computed at once: 128 kB for each of a dozen intermediate results."""


def adjust_brightness(planes: Planes, factor: float) -> Planes:
    return _looked_up(planes, lambda values: F.adjust_brightness(values, factor))


def adjust_contrast(planes: Planes, factor: float) -> Planes:
    mean = _grey(planes)[None].mean(dim=(-3, -2, -1), keepdim=True)  # (1, 1, 1)
    return _looked_up(planes, lambda values: _blended(values, mean, factor))


def adjust_saturation(planes: Planes, factor: float) -> Planes:
    result = [torch.empty_like(plane) for plane in planes]
    flat, written = ([plane.view(-1) for plane in each] for each in (planes, result))
    for start in range(0, len(flat[0]), _BLOCK):
        blocks = [each[start : start + _BLOCK] for each in flat]
        grey = _grey(blocks)
        for target, block in zip(written, blocks, strict=True):
            target[start : start + _BLOCK] = _blended(block, grey, factor)
    return result


def adjust_hue(planes: Planes, factor: float) -> Planes:
    """`factor` is in [-0.5, 0.5], turns of the colour circle."""
    result = [torch.empty_like(plane) for plane in planes]
    flat, written = ([plane.numpy().reshape(-1) for plane in each] for each in (planes, result))
    for start in range(0, len(flat[0]), _BLOCK):
        block = slice(start, start + _BLOCK)
        for target, values in zip(written, _turned([each[block] for each in flat], factor), strict=True):
            target[block] = values
    return result


CHANGES: dict[str, Callable[[Planes, float], Planes]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


def _looked_up(planes: Planes, change: Callable[[Tensor], Tensor]) -> Planes:
    """`change` of a value that depends on nothing else, for each pixel."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 256)
    table = change(values).numpy().reshape(1, 256)
    return [torch.from_numpy(cv2.LUT(plane.numpy(), table)) for plane in planes]


def _grey(planes: Planes) -> Tensor:
    """Float32 of the planes' shape, whole numbers."""
    red, green, blue = (plane.to(torch.float32) for plane in planes)  # mixed types are slow
    return red.mul_(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def _blended(image: Tensor, other: Tensor, ratio: float) -> Tensor:
    return image.to(torch.float32).mul_(ratio).add_(other, alpha=1.0 - ratio).clamp_(0, 255).to(torch.uint8)


def _turned(rgb: Sequence[np.ndarray], factor: float) -> list[np.ndarray]:
    """Bytes (P,) of red, green and blue with another hue."""
    # `np.where` takes as long as four sums, so choices are made by masks, on bytes where that can be.
    red, green, blue = (each.astype(np.float32) * np.float32(1.0 / 255) for each in rgb)
    hue, saturation, value = _to_hsv(red, green, blue)
    hue += np.float32(factor)
    hue -= np.floor(hue)
    return _to_rgb(hue, saturation, value)


def _to_hsv(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue, saturation and value in [0, 1] of colours in [0, 1], (P,) float32 each."""
    value = np.maximum(np.maximum(red, green), blue)
    extent = value - np.minimum(np.minimum(red, green), blue)
    saturation = extent / (value + (value == 0).astype(np.float32))
    divisor = extent + (extent == 0).astype(np.float32)  # 1 where the colour is a grey
    from_red, from_green, from_blue = ((value - each) / divisor for each in (red, green, blue))
    is_red = value == red
    is_green = (value == green) & ~is_red
    hue = (from_blue - from_green) * is_red.astype(np.float32)
    hue += (from_red + np.float32(2) - from_blue) * is_green.astype(np.float32)
    hue += (from_green + np.float32(4) - from_red) * (~(is_red | is_green)).astype(np.float32)
    hue *= np.float32(1.0 / 6.0)
    hue += np.float32(1)
    hue -= np.floor(hue)
    return hue, saturation, value


def _to_rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> list[np.ndarray]:
    """The inverse of `_to_hsv`, as bytes (P,)."""
    sixths = hue * np.float32(6)
    whole = np.floor(sixths)
    sextant = whole.astype(np.uint8)
    share, rest = saturation * (sixths - whole), np.float32(1) - saturation
    full, low, rising, falling = (
        (each * np.float32(255 + 1.0 - 1e-3)).astype(np.uint8)
        for each in (value, rest * value, (share + rest) * value, (np.float32(1) - share) * value)
    )
    # Bytes of ones where it is so. A hue that rounding made 1 is in sextant 6, which is sextant 0.
    in_0, in_1, in_2, in_3, in_4, in_5 = (_mask(sextant == number) for number in range(6))
    in_0 |= _mask(sextant == 6)
    is_odd = in_1 | in_3 | in_5
    between = (falling & is_odd) | (rising & ~is_odd)
    red = (full & (in_5 | in_0)) | (between & (in_1 | in_4)) | (low & (in_2 | in_3))
    green = (full & (in_1 | in_2)) | (between & (in_0 | in_3)) | (low & (in_4 | in_5))
    blue = (full & (in_3 | in_4)) | (between & (in_2 | in_5)) | (low & (in_0 | in_1))
    return [red, green, blue]


def _mask(condition: np.ndarray) -> np.ndarray:
    """255 where it holds, else 0; (P,) uint8."""
    return np.negative(condition.view(np.uint8))
