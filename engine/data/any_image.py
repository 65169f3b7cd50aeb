"""Images in all the forms in which programs hold them, as pixels: paths, encoded bytes, arrays, Pillow's, tensors.

Neither Pillow nor torch is imported here: an object of theirs exists only where somebody else did.

Shapes: H W, C channels.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from engine.data.decode import COLOURS
from engine.data.image_file import MAX_PIXELS, as_pixels, decoded_image, is_image, read_image, turned
from engine.data.reading import DEFAULT, Reading
from engine.errors import InputError, shown

COLORS = ("bgr", "rgb")
_EXIF_ORIENTATION = 274
_GREY_MODES = ("1", "L", "LA", "La")
_MULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
"""Modes of Pillow whose values are multiplied by their alpha -> the mode whose are not."""


def any_image(image: Any, reading: Reading = DEFAULT, color: str = "bgr") -> np.ndarray:
    """An image as pixels (H, W, C), uint8, or float32 in 0..255 where its samples have more than 8 bits.

    Files, encoded images and Pillow's know their colours and orientation, so `color` does not count for them. Alpha is
    dropped, see `image_file.read_image`.

    Args:
        image: one of
            a path;
            the content of an image file (bytes, bytearray, memoryview);
            an array (H, W), (H, W, 1) or (H, W, 3) of a real type: other than uint8, `reading.value_range` scales it;
            a tensor (H, W), (1, H, W) or (3, H, W), likewise, on any device;
            an image of Pillow of any mode.
        reading: how images become pixels.
        color: the order of the channels of arrays and tensors, "bgr" or "rgb".

    Raises:
        InputError: a file or an encoded image cannot be read.
        ValueError: it is none of these.

    Example:
        >>> any_image(np.zeros((2, 3), np.uint8)).shape
        (2, 3, 3)
    """
    if color not in COLORS:
        raise ValueError(f'color must be "bgr" or "rgb", not {shown(color)}')
    if isinstance(image, (str, os.PathLike)):
        return read_image(os.fspath(image), reading=reading)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decoded_image(bytes(image), reading=reading)
    if _is_instance(image, "PIL.Image", "Image"):
        return _of_pillow(image, reading)
    if _is_instance(image, "torch", "Tensor"):
        samples = _of_tensor(image, reading.channels)
    else:
        samples = image if isinstance(image, np.ndarray) and is_image(image, reading.channels) else None
    if samples is None:
        raise ValueError(f"{_expected(reading.channels)}, not {_described(image)}")
    if color == "rgb" and samples.ndim == 3 and samples.shape[2] >= 3:
        samples = _reversed(samples)
    return as_pixels(samples, reading)


def _is_instance(value: Any, module: str, name: str) -> bool:
    """Whether `value` is of a class of a library that this process has perhaps never imported."""
    return module in sys.modules and isinstance(value, getattr(sys.modules[module], name))


def _expected(channels: int) -> str:
    shapes, tensors = "(H, W, 3) or (H, W)", "(3, H, W)"
    if channels not in COLOURS:
        shapes, tensors = f"(H, W, {channels})", f"({channels}, H, W)"
    return (
        f"an image must be a path, encoded bytes, a BGR uint8 (uint16, float) array of shape {shapes}, not empty, "
        f"a tensor {tensors}, or an image of Pillow"
    )


def _described(value: Any) -> str:
    """What was given instead of an image, for a message."""
    shape = getattr(value, "shape", None)
    if shape is None:
        hint = "; give several images as a list" if hasattr(value, "__next__") else ""
        return f"{type(value).__name__} {shown(value)}{hint}"
    kind = "a tensor" if _is_instance(value, "torch", "Tensor") else "an array"
    hint = "; give several images as a list" if len(shape) == 4 else ""
    return f"{kind} of {value.dtype} and shape {tuple(shape)}{hint}"


def _reversed(samples: np.ndarray) -> np.ndarray:
    """(H, W, C >= 3) with the first three channels in reverse order."""
    order = [2, 1, 0, *range(3, samples.shape[2])]
    return np.ascontiguousarray(samples[..., order])


def _of_tensor(image: Any, channels: int) -> np.ndarray | None:
    """Samples (H, W) or (H, W, C) of a tensor (H, W) or (C, H, W); None if it is no image."""
    try:
        image = image.detach().cpu()
        samples = (image.float() if str(image.dtype) == "torch.bfloat16" else image).numpy()
    except (TypeError, RuntimeError, NotImplementedError):  # sparse, quantised, or without values
        return None
    if samples.ndim == 3:
        samples = np.moveaxis(samples, 0, 2)  # (C, H, W) -> (H, W, C)
    return np.ascontiguousarray(samples) if is_image(samples, channels) else None


def _of_pillow(image: Any, reading: Reading) -> np.ndarray:
    """Pixels of an image of Pillow, turned as its EXIF says, unless `reading` ignores that."""
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise InputError(f"the image has {size} pixels, which are more than can be read; cut it into tiles")
    try:
        image.load()  # before its EXIF is asked for: Pillow turns a TIFF by itself, and says so there
        orientation = image.getexif().get(_EXIF_ORIENTATION) if reading.orientation != "ignore" else 1
        samples = _samples_of_pillow(image, reading.channels)
    except (OSError, SyntaxError) as error:
        raise InputError(
            f"{getattr(image, 'filename', '') or 'the image'}: damaged ({error}); use another copy"
        ) from None
    except ValueError as error:  # it is closed, or of a mode that Pillow cannot convert
        raise ValueError(f"an image of Pillow of mode {image.mode} cannot be used: {error}") from None
    if not is_image(samples, reading.channels):
        given = f"mode {image.mode} and {image.width} x {image.height} pixels"
        raise ValueError(f"{_expected(reading.channels)}, not one of {given}")
    return as_pixels(turned(samples, orientation if orientation in range(1, 9) else 1), reading)


def _samples_of_pillow(image: Any, channels: int) -> np.ndarray:
    """Samples (H, W) or (H, W, C), colours in the order BGR."""
    mode = image.mode
    if channels not in COLOURS:
        samples = np.array(image)
        return _reversed(samples) if mode.startswith("RGB") else samples
    if mode in ("I", "F") or mode.startswith("I;16"):
        samples = np.array(image)
        return samples.astype(samples.dtype.newbyteorder("="))
    if mode in _MULTIPLIED:
        image = image.convert(_MULTIPLIED[mode])
    return np.array(image.convert("L")) if mode in _GREY_MODES else _reversed(np.array(image.convert("RGB")))
