"""How image files become pixels: what one run decides for all of its images."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data.value_range import ValueRange


@dataclass(frozen=True)
class Reading:
    """See `engine.data.image_file.read_image`.

    Attributes:
        value_range: what becomes 0 and 255 in images of more than 8 bits; None: each image has its own, said once.
        channels: of the pixels; 1 is grey, 3 is BGR, 4 is BGR and a fourth.
        orientation: "apply" turns images as EXIF and TIFF say, "ignore" does not; "auto" turns them unless the size
            stated with the annotations is that of the image as stored and not of the upright one: the tool that wrote
            them ignored the orientation then.
    """

    value_range: ValueRange | None = None
    channels: int = 3
    orientation: str = "auto"


DEFAULT = Reading()
