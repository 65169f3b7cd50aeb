"""The samples of an image file in memory, and how many channels they become.

Shapes: H W, C channels.
"""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from engine.data import array_file, tiff_samples
from engine.data.image_header import Header
from engine.data.library_messages import with_messages
from engine.errors import InputError

COLOURS = (1, 3)
"""Numbers of channels that any image can be converted to."""
_MOST_OF_OPENCV = 4
_MOST_PAGES = 1024


def decode(data: bytes, header: Header | None, channels: int) -> tuple[np.ndarray | None, list[str]]:
    """The stored samples (H, W) or (H, W, C), None if the file is no image, and what the libraries said.

    For 1 and 3 `channels`, samples of 8 bits are BGR, deeper ones BGR or grey, without alpha. For others they have the
    channels of the file.

    Raises:
        tiff_samples.UnreadableTiffError: says why a TIFF is none that we read.
    """
    if header is not None and header.kind == "NPY":
        samples, messages = _from_array(data), []
    elif header is not None and header.kind == "TIFF" and _is_for_us(header, channels):
        samples, messages = with_messages(lambda: _from_tiff(data, channels))
    elif header is not None and header.has_alpha and not header.is_deep:  # OpenCV would multiply by it
        try:
            samples, messages = with_messages(lambda: _from_tiff(data, channels))
        except tiff_samples.UnreadableTiffError:
            samples, messages = _by_opencv(data, header, channels)
    else:
        samples, messages = _by_opencv(data, header, channels)
        if samples is None and header is not None and header.photometric in tiff_samples.MEANINGS:
            with suppress(tiff_samples.UnreadableTiffError):  # a type of samples that this OpenCV does not know
                samples, messages = with_messages(lambda: _from_tiff(data, channels))
    if samples is not None and channels in COLOURS and samples.ndim == 3 and samples.shape[2] in (2, 4):
        samples = samples[..., 0] if samples.shape[2] == 2 else samples[..., :3]
    return samples, messages


def _by_opencv(data: bytes, header: Header | None, channels: int) -> tuple[np.ndarray | None, list[str]]:
    flags = cv2.IMREAD_COLOR
    if channels not in COLOURS:
        flags = cv2.IMREAD_UNCHANGED
    elif header is None:
        flags |= cv2.IMREAD_ANYDEPTH
    elif header.is_deep:  # a grey float image cannot be converted to colour
        flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR
    flags |= cv2.IMREAD_IGNORE_ORIENTATION

    def call() -> np.ndarray | None:
        try:
            return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except (cv2.error, MemoryError):  # such as more pixels than OpenCV's limit
            return None

    samples, messages = with_messages(call)
    messages = [line for line in messages if "iCCP" not in line]  # a colour profile, which is not used
    if samples is None or header is None:
        return samples, messages
    if header.is_deep and header.photometric == tiff_samples.WHITE_IS_ZERO:
        samples = tiff_samples.inverted(samples)
    if header.kind == "PNG" and header.channels == 2 and channels not in COLOURS:  # OpenCV repeats the grey
        samples = samples[..., [0, -1]]
    return samples, messages


def fitted(pixels: np.ndarray, channels: int, name: str | Path) -> np.ndarray:
    """Pixels (H, W) or (H, W, C), uint8 or float32, as (H, W, channels).

    Grey and colours are converted into each other (BT.601), and alpha is dropped for 1 and 3 channels.

    Raises:
        InputError: the image has another number of channels.

    Example:
        >>> fitted(np.zeros((2, 2, 4), np.uint8), 3, "a.png").shape
        (2, 2, 3)
    """
    given = 1 if pixels.ndim == 2 else pixels.shape[2]
    if given == channels:
        return np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[..., None])
    if channels not in COLOURS or given > _MOST_OF_OPENCV:
        raise InputError(f"{name}: {_wrong_number(given, channels)}")
    if given < 3:
        grey = np.ascontiguousarray(pixels if pixels.ndim == 2 else pixels[..., 0])
        return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR) if channels == 3 else grey[..., None]
    colours = np.ascontiguousarray(pixels[..., :3])
    return colours if channels == 3 else cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY)[..., None]


def check_channels(header: Header, channels: int, path: str | Path) -> None:
    """Refuse a file by its header, before it is decoded.

    Raises:
        InputError: its channels are none that `channels` can be made of.
    """
    if header.channels > _MOST_OF_OPENCV and channels in COLOURS:
        raise InputError(f"{path}: {_wrong_number(header.channels, channels)}")


def _wrong_number(given: int, channels: int) -> str:
    return (
        f"has {given} channel{'s' if given > 1 else ''}, but INPUT.CHANNELS is {channels}; set INPUT.CHANNELS "
        f"{given} for a data set of such images, or convert the file"
    )


def _from_array(data: bytes) -> np.ndarray:
    return array_file.read_array(data, array_file.read_layout(io.BytesIO(data)))


def _is_for_us(header: Header, channels: int) -> bool:
    """Whether OpenCV would refuse a TIFF, cut it to 8 bits, or take it for other colours."""
    if channels not in COLOURS or header.photometric == tiff_samples.CIELAB:
        return True
    return header.is_deep and (header.photometric == tiff_samples.CMYK or header.channels == 2)


def _from_tiff(data: bytes, channels: int) -> np.ndarray:
    """The first page, or, if it is grey, as many grey pages as there are to be channels."""
    pages = tiff_samples.read_pages(data, _MOST_PAGES if channels not in COLOURS else 1)
    first = pages[0]
    if channels not in COLOURS and first.num_channels != channels and (first.num_channels > 1 or len(pages) == 1):
        raise tiff_samples.UnreadableTiffError(_wrong_number(first.num_channels, channels))
    if first.num_channels == 1 and channels not in COLOURS:
        for number, page in enumerate(pages):
            if (page.num_channels, page.size, page.dtype) != (1, first.size, first.dtype):
                raise tiff_samples.UnreadableTiffError(f"its page {number + 1} has another size or type than its first")
        if len(pages) != channels:
            raise tiff_samples.UnreadableTiffError(
                f"has {len(pages)} pages of one channel, but INPUT.CHANNELS is {channels}; set it to their number"
            )
    else:
        pages = pages[:1]
    parts = [tiff_samples.as_shown(tiff_samples.stored_samples(data, page), page.photometric) for page in pages]
    return np.concatenate(parts, axis=2)
