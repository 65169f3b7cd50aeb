"""Reading image files as upright arrays (H, W, C); a file that is incomplete or no image is an error.

What libraries do differently from version to version (orientation, deep samples, messages on stderr) is done here.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from engine.data.decode import COLOURS, check_channels, decode, fitted
from engine.data.image_header import BrokenHeaderError, Header, foreign_kind, read_header
from engine.data.library_messages import silence_opencv
from engine.data.reading import DEFAULT, Reading
from engine.data.tiff_samples import UnreadableTiffError
from engine.data.value_range import measured_range, scaled, shown_range
from engine.errors import InputError
from engine.files import replacing
from engine.log import get_logger

silence_opencv()

logger = get_logger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""The formats that every OpenCV reads. By its content, a file is read under any name."""
_LARGEST_SIDES = {".jpg": 65535, ".jpeg": 65535, ".webp": 16383}
MAX_PIXELS = 1 << 30
"""OpenCV's limit."""
_JPEG_END = b"\xff\xd9"
_PNG_END = b"IEND\xaeB`\x82"
_LONGEST_NAME = 230
"""Bytes of the name of a picture, which leaves room for a number among the 255 of a file system."""
_SMALL = 1 << 28
"""Bytes of pixels that are decoded without asking how small the file is."""
_MAX_RATIO = 25_000
"""Bytes of pixels (24 bits) per byte of a file: a blank drawing of 1 bit, deflated (1032:1), comes near it."""
_FEW_LEVELS = 8
"""Of 256: an image with fewer is as good as empty."""
_TRANSPOSED = range(5, 9)
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
"""Orientation -> axis for `cv2.flip`, after the transposition of 5..8."""

_TYPES_OF_OPENCV = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64)

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


def read_image(
    path: str | Path, expected_size: tuple[int, int] | None = None, reading: Reading = DEFAULT
) -> np.ndarray:
    """Read an image as pixels (H, W, C), uint8, or float32 in 0..255 if its samples have more than 8 bits.

    C is `reading.channels`. For 3 (BGR) and 1 (grey), images of other kinds (grey, colour, palette, CMYK, CIELab) are
    converted, and alpha is dropped. Any other C must be that of the file: its channels, for 4 the first three as BGR;
    or its number of pages (TIFF). Samples of more than 8 bits and floats are scaled by the range of values and not
    rounded.

    The orientation (EXIF, TIFF) is applied as `reading.orientation` says.

    A file that can be decoded although it is damaged is reported, see `collected_damage`.

    Args:
        path: JPEG, PNG, BMP, TIFF, WebP, NumPy's .npy, or what else OpenCV reads; recognised by its content.
        expected_size: (height, width) stated in the annotation file, pixels.
        reading: what the run decides, see there.

    Raises:
        InputError: the file is missing, empty, truncated, not an image, or has other channels.
    """
    return decoded_image(_read_bytes(path), path, expected_size, reading)


def decoded_image(
    data: bytes,
    name: str | Path = "the encoded image",
    expected_size: tuple[int, int] | None = None,
    reading: Reading = DEFAULT,
) -> np.ndarray:
    """As `read_image`, of the content of a file, checked in the same ways; `name` stands for its path in messages.

    Example:
        >>> data = cv2.imencode(".png", np.zeros((2, 3), np.uint8))[1].tobytes()
        >>> decoded_image(data).shape
        (2, 3, 3)
    """
    samples = _decoded_samples(data, name, expected_size, reading)
    if samples.dtype.kind == "f" and (num_nan := int(np.isnan(samples).sum())):
        if num_nan == samples.size:
            raise InputError(f"{name}: all its samples are NaN; replace the file")
        report_damage(f"{name}: {num_nan} samples are NaN and count as the lowest value")
    return as_pixels(samples, reading, name)


def as_pixels(samples: np.ndarray, reading: Reading = DEFAULT, name: str | Path = "an array") -> np.ndarray:
    """Samples (H, W) or (H, W, C) of any real type as pixels (H, W, `reading.channels`), see `read_image`.

    `name` is for reports: an image that becomes nearly black, white or flat in a range that is not its own is one.

    Raises:
        InputError: they have another number of channels.
    """
    return fitted(samples if samples.dtype == np.uint8 else _scaled(samples, reading, name), reading.channels, name)


def _scaled(samples: np.ndarray, reading: Reading, name: str | Path) -> np.ndarray:
    given = reading.value_range
    if given is None:
        _say_ranges_differ()
    pixels = scaled(samples, given or measured_range([samples]) or (0.0, 1.0))
    if given and np.ptp(pixels) < _FEW_LEVELS and (own := measured_range([samples])):
        words = f"become almost one level in the range {shown_range(given)} (INPUT.VALUE_RANGE)"
        report_damage(f"{name}: its values {shown_range(own)} {words}")
    return pixels


def is_image(array: np.ndarray, channels: int = 3) -> bool:
    """Whether `array` is (H, W, `channels`), or grey or colours where either can become the other, and not empty."""
    allowed = ((), (1,), (3,)) if channels in COLOURS else ((channels,),)
    return array.dtype.kind in "uif" and array.ndim in (2, 3) and array.shape[2:] in allowed and array.size > 0


def read_samples(
    path: str | Path, expected_size: tuple[int, int] | None = None, reading: Reading = DEFAULT
) -> np.ndarray:
    """As `read_image`, with the samples as stored: (H, W) or (H, W, C) of any type; uint8 for 3 channels is BGR."""
    return _decoded_samples(_read_bytes(path), path, expected_size, reading)


def _decoded_samples(
    data: bytes, path: str | Path, expected_size: tuple[int, int] | None, reading: Reading
) -> np.ndarray:
    if not data:
        raise InputError(f"{path}: the image file is empty (zero bytes); replace it")
    header = _header_of(path, io.BytesIO(data))
    orientation = 1
    if header is not None:
        _check_whole(path, data, header)
        check_channels(header, reading.channels, path)
        orientation = _orientation_to_apply(header, expected_size, reading.orientation)
        if header.orientation_at is not None:
            data = _without_orientation(data, *header.orientation_at)
    try:
        samples, messages = decode(data, header, reading.channels)
    except (UnreadableTiffError, BrokenHeaderError) as error:
        raise InputError(f"{path}: {error}") from None
    if samples is None:
        what = foreign_kind(data[:256])
        what = f"is {what}, not an image" if what else "damaged, or not an image that OpenCV can read"
        raise InputError(f"{path}: {what}; replace the file")
    if header is not None and samples.shape[:2] != header.size:
        raise InputError(f"{path}: damaged: its header says another size than its pixels have; replace the file")
    if messages:
        report_damage(f"{path}: damaged ({'; '.join(messages)}); the image is used as decoded")
    return turned(samples, orientation)


def read_size(
    path: str | Path, expected_size: tuple[int, int] | None = None, orientation: str = DEFAULT.orientation
) -> tuple[int, int]:
    """(height, width) of what `read_image` returns.

    It is read from the file's header alone, except for formats whose headers are not known here (JPEG 2000, PNM, ...).

    Raises:
        InputError: the file is missing, or its header is not that of an image.
    """
    header = _header_at(path)
    if header is None:
        return read_samples(path).shape[:2]
    size = header.size
    return size[::-1] if _orientation_to_apply(header, expected_size, orientation) in _TRANSPOSED else size


def may_be_deep(path: str | Path) -> bool:
    """Whether the samples of an image file may be other than unsigned integers of up to 8 bits.

    By its header; the answer is True for formats whose headers are not known here.

    Raises:
        InputError: see `read_size`.
    """
    header = _header_at(path)
    return header is None or header.is_deep


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """A stored image (H, W) or (H, W, C) made upright; `orientation` is that of EXIF, 1..8.

    Example:
        >>> turned(np.array([[1, 2, 3]], np.uint8), 6).tolist()
        [[1], [2], [3]]
    """
    if (image.ndim == 3 and image.shape[2] > 4) or image.dtype not in _TYPES_OF_OPENCV:
        return _turned_slowly(image, orientation)
    if orientation in _TRANSPOSED:
        image = cv2.transpose(image)  # several times as fast as copying what NumPy transposes
    flip = _FLIPS.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def _turned_slowly(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in _TRANSPOSED:
        image = image.swapaxes(0, 1)
    flip = _FLIPS.get(orientation)
    axes = {None: (), -1: (0, 1)}.get(flip, (flip,))
    return np.ascontiguousarray(np.flip(image, axes))


def write_image(path: Path, image: np.ndarray) -> None:
    """Write `image`, BGR uint8 (H, W, 3), in the format that the suffix of `path` names; atomically.

    Raises:
        InputError: there is no such format, or the file cannot be written.
    """
    if not _is_writable(path):
        raise InputError(f"{path}: cannot write an image of this kind")
    # Not cv2.imwrite: on Windows it cannot open paths with characters outside the local code page.
    try:
        is_encoded, data = cv2.imencode(path.suffix, image)
    except cv2.error:
        is_encoded = False
    if not is_encoded:
        raise InputError(f"{path}: this format cannot hold {image.shape[1]} x {image.shape[0]} pixels")
    with replacing(path) as file:  # an image that a link there leads to is not overwritten
        file.write(data.tobytes())


def picture_name(path: Path, size: tuple[int, int]) -> str:
    """The name of `path` for a picture of `size`: with `.png` added if its suffix names no format that we write.

    Example:
        >>> picture_name(Path("a/b.JPG"), (8, 8)), picture_name(Path("a/b.gif"), (8, 8))
        ('b.JPG', 'b.gif.png')
    """
    limit = _LARGEST_SIDES.get(path.suffix.lower(), 1 << 30)
    is_written = path.suffix.lower() in IMAGE_SUFFIXES and max(size) <= limit and _is_writable(path)
    stem, suffix = (path.stem, path.suffix) if is_written else (path.name, ".png")
    encoded, room = os.fsencode(stem), _LONGEST_NAME - len(suffix)
    return stem + suffix if len(encoded) <= room else encoded[:room].decode("utf-8", "ignore") + suffix


def _is_writable(path: Path) -> bool:
    """Whether OpenCV writes this format; it would crash on the rest of a name that is not UTF-8."""
    return path.suffix.isascii() and cv2.haveImageWriter(f"x{path.suffix}")


@contextmanager
def collected_damage() -> Iterator[list[str]]:
    """Collect a line for each damaged image read within the block by this thread, which is otherwise a warning."""
    lines: list[str] = []
    token = _collected.set(lines)
    try:
        yield lines
    finally:
        _collected.reset(token)


def report_damage(line: str) -> None:
    """A line for `collected_damage`; without it, a warning."""
    collected = _collected.get()
    if collected is None:
        logger.warning("%s", line)
    else:
        collected.append(line)


@cache
def _say_ranges_differ() -> None:
    """Once per process."""
    logger.warning(
        "images of more than 8 bits (or floats) without a known range of values: each is scaled by its own lowest and "
        "highest value; declare INPUT.VALUE_RANGE (low, high)"
    )


def _read_bytes(path: str | Path) -> bytes:
    _check_regular(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _check_regular(path: str | Path) -> None:
    """Only a regular file: to read a pipe or a device named like an image may wait for ever."""
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such image file") from None
    except (OSError, ValueError) as error:  # a NUL in the name is a ValueError
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise InputError(f"{path}: is {what}, not an image file")


def _unreadable(path: str | Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})")


def _header_at(path: str | Path) -> Header | None:
    _check_regular(path)
    try:
        with Path(path).open("rb") as stream:
            return _header_of(path, stream)
    except OSError as error:
        raise _unreadable(path, error) from error


def _header_of(path: str | Path, stream: BinaryIO) -> Header | None:
    try:
        header = read_header(stream)
    except BrokenHeaderError as error:
        raise InputError(
            f"{path}: damaged or truncated, not an image that can be read ({error}); copy or download it again"
        ) from None
    if header is not None and header.size[0] * header.size[1] > MAX_PIXELS:
        height, width = header.size
        raise InputError(f"{path}: {width} x {height} pixels are more than can be read; cut it into tiles")
    return header


def _check_whole(path: str | Path, data: bytes, header: Header) -> None:
    """Decoders may silently fill what is missing with grey, or take the memory that a forged header asks for."""
    is_truncated = len(data) < header.least_bytes
    # The marker may stand anywhere behind the start of the pixels: some cameras append data of their own.
    if header.kind == "JPEG":
        is_truncated = data.rfind(_JPEG_END, header.pixels_at) < 0
    elif header.kind == "PNG":
        is_truncated = data.rfind(_PNG_END) < 0  # from the end, where it is
    if is_truncated:
        raise InputError(f"{path}: the image file is truncated; copy or download it again")
    num_bytes = max(3, header.channels) * header.size[0] * header.size[1]
    if num_bytes > max(_SMALL, _MAX_RATIO * len(data)):
        height, width = header.size
        raise InputError(
            f"{path}: {len(data)} bytes cannot hold the {width} x {height} pixels that it declares; use another copy"
        )


def _orientation_to_apply(header: Header, expected_size: tuple[int, int] | None, rule: str) -> int:
    if rule != "auto":
        return header.orientation if rule == "apply" else 1
    is_ignored = header.orientation in _TRANSPOSED and expected_size == header.size != header.size[::-1]
    return 1 if is_ignored else header.orientation


def _without_orientation(data: bytes, offset: int, one: bytes) -> bytes:
    """OpenCV turns TIFFs in spite of IMREAD_IGNORE_ORIENTATION, and only some versions exchange the sides."""
    return data[:offset] + one + data[offset + len(one) :]
