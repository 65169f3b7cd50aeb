"""Images refused by what their headers say, before they are decoded."""

from __future__ import annotations

import io

from engine.data.image_header import BrokenHeaderError, Header, foreign_kind, read_header
from engine.serve.limits import Limits, Refusal

KINDS = "JPEG, PNG, BMP, TIFF, WebP, GIF or NumPy's .npy"


def check_image(data: bytes, limits: Limits) -> None:
    """Refuse what must not be decoded.

    Raises:
        Refusal: 400 empty, 413 too many pixels, 415 not an image, 422 damaged.
    """
    if not data:
        raise Refusal(400, "the image is empty")
    try:
        header = read_header(io.BytesIO(data))
    except BrokenHeaderError as error:
        raise Refusal(422, f"the image is damaged or truncated ({error}); send it again or another copy") from None
    if header is None:
        raise Refusal(415, f"this is {foreign_kind(data[:256]) or 'not an image'}; send {KINDS}")
    if num_pixels(header) > limits.max_pixels:
        height, width = header.size
        raise Refusal(413, f"{width} x {height} pixels are more than {limits.max_pixels}; send a smaller image")


def num_pixels(header: Header) -> int:
    """What an image takes in memory, in pixels of 3 channels.

    Example:
        >>> num_pixels(Header("PNG", (20, 30))), num_pixels(Header("TIFF", (20, 30), channels=6))
        (600, 1200)
    """
    return header.size[0] * header.size[1] * max(3, header.channels) // 3
