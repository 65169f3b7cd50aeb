"""Pixels as the network gets them, made a picture that can be drawn on and written.

Shapes: H W, C channels.
"""

from __future__ import annotations

import numpy as np


def as_picture(pixels: np.ndarray) -> np.ndarray:
    """BGR uint8 (H, W, 3) of pixels (H, W, C) in 0..255, uint8 or floats, as `engine.data.image_file.read_image` gives.

    Grey is repeated, and of four channels the first three are the colours. Of another number, which are no colours, the
    first three are shown (of two the first), each stretched from its lowest to its highest value.

    Raises:
        ValueError: `pixels` are not (H, W, C), or neither uint8 nor floats.

    Example:
        >>> as_picture(np.array([[[0.4, 0.6, 254.7]]], np.float32)).tolist()
        [[[0, 1, 255]]]
    """
    if pixels.ndim != 3 or not pixels.size or not (pixels.dtype == np.uint8 or pixels.dtype.kind == "f"):
        raise ValueError(f"need BGR pixels (H, W, C), uint8 or floats in 0..255, got {pixels.dtype} {pixels.shape}")
    shown = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
    if pixels.shape[2] not in (1, 3, 4):
        low, high = (end(shown, axis=(0, 1), keepdims=True).astype(np.float32) for end in (np.min, np.max))
        shown = (shown - low) * (255 / np.maximum(high - low, np.finfo(np.float32).tiny * 256))
    shown = shown if shown.shape[2] == 3 else np.repeat(shown, 3, axis=2)
    if shown.dtype == np.uint8:
        return shown
    return np.rint(np.nan_to_num(shown)).clip(0, 255).astype(np.uint8)
