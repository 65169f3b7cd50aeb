"""Reading image files as upright BGR uint8 arrays (H, W, 3); a file that is damaged or incomplete is an error."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

from engine.errors import InputError

# OpenCV prints what it has against a file; the caller gets an InputError, which is enough.
if hasattr(cv2, "setLogLevel"):
    cv2.setLogLevel(0)

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_SCAN = 0xDA
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_TRANSPOSED_ORIENTATIONS = range(5, 9)


def read_image(path: str | Path, expected_size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image as BGR uint8 (H, W, 3).

    Grey, palette, 16-bit (the upper byte is kept), CMYK and transparent images (alpha is dropped) are converted to BGR.
    The EXIF orientation is applied, unless `expected_size` is that of the image as stored and not that of the upright
    one: then the tool that wrote the annotations ignored the orientation.

    Args:
        path: a file in any format that OpenCV reads.
        expected_size: (height, width) stated in the annotation file, pixels.

    Raises:
        InputError: the file is missing, empty, truncated or not an image.
    """
    data = _read_bytes(path)
    image = _decode(data, cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path}: damaged, or not an image that OpenCV can read; replace the file")
    size = image.shape[:2]
    if expected_size is not None and size != expected_size and size[::-1] == expected_size:
        stored = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if stored is not None and stored.shape[:2] == expected_size:
            return stored
    return image


def write_image(path: Path, image: np.ndarray) -> None:
    """Write `image`, BGR uint8 (H, W, 3), in the format that the suffix of `path` names.

    Raises:
        InputError: there is no such format, or the file cannot be written.
    """
    if not cv2.haveImageWriter(path.name):
        raise InputError(f"{path}: cannot write an image of this kind")
    # Not cv2.imwrite: on Windows it cannot open paths with characters outside the local code page.
    data = cv2.imencode(path.suffix, image)[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def read_size(path: str | Path, expected_size: tuple[int, int] | None = None) -> tuple[int, int]:
    """(height, width) of the image that `read_image` returns, from the file's header alone.

    Raises:
        InputError: the file is missing, or its header is not that of an image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such image file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image ({error})") from error
    if orientation in _TRANSPOSED_ORIENTATIONS and expected_size != (height, width):
        return width, height
    return height, width


def _read_bytes(path: str | Path) -> bytes:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such image file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise InputError(f"{path}: the image file is empty (zero bytes); replace it")
    if _is_truncated(data):
        raise InputError(f"{path}: the image file is truncated; copy or download it again")
    return data


def _decode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # for example more pixels than OpenCV's limit
        return None


def _is_truncated(data: bytes) -> bool:
    """Whether the end of a JPEG or PNG is missing; decoders may silently fill the missing rows with grey."""
    # The marker may stand anywhere behind the start of the pixels: some cameras append data of their own.
    if data.startswith(_JPEG_START):
        return data.rfind(_JPEG_END, _jpeg_scan_start(data)) < 0
    return data.startswith(_PNG_START) and data.rfind(_PNG_END) < 0  # from the end, where it is


def _jpeg_scan_start(data: bytes) -> int:
    """Where the pixels begin, behind the headers: a thumbnail in them has an end marker of its own."""
    position = 2
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker == _JPEG_SCAN:
            return position
        is_fill_byte = marker == 0xFF
        position += 1 if is_fill_byte else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)
