"""How image files become pixels: what one run decides for all of its images."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data.value_range import ValueRange


@dataclass(frozen=True)
class Reading:
    """See `engine.data.image_file.read_image`.

    Attributes:
        value_range: what becomes 0 and 255 in images of more than 8 bits; None: each image has its own, said once.
    """

    value_range: ValueRange | None = None


DEFAULT = Reading()
