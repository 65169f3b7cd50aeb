"""Boxes as two corners, or relative to the size of their image: each form and its inverse, in decimal arithmetic.

Floats would not come back: 266.33 + 27.87 - 266.33 is not 27.87. As decimal numbers, sums and differences are exact, so
a box that is written in another format and read again is the same, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Context, Decimal

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels."""

_EXACT = Context(prec=2500)  # no sum of two floats needs more digits
_QUOTIENTS = Context(prec=60)
_DIGITS = (6, 8, 10, 12, 14, 16, 18, 20, 22, 25, 30, 40)  # decimals of a relative number, the fewest that suffice


def to_xywh(corners: Sequence[Decimal]) -> Box | None:
    """x1, y1, x2, y2 as x, y, width, height, nothing clipped or reordered; None where a float cannot hold it.

    Example:
        >>> to_xywh([Decimal(text) for text in ("266.33", "10", "294.2", "9")])
        (266.33, 10.0, 27.87, -1.0)
    """
    x1, y1, x2, y2 = corners
    box = float(x1), float(y1), float(_EXACT.subtract(x2, x1)), float(_EXACT.subtract(y2, y1))
    return box if all(map(math.isfinite, box)) else None


def to_corners(box: Sequence[float]) -> list[str]:
    """The inverse of `to_xywh`: x1, y1, x2, y2 as texts, which it reads as exactly this box.

    Example:
        >>> to_corners([266.33, 10.0, 27.87, -1.0])
        ['266.33', '10', '294.2', '9']
    """
    x, y, width, height = (Decimal(repr(float(each))) for each in box)
    return list(map(written, (x, y, _EXACT.add(x, width), _EXACT.add(y, height))))


def written(value: Decimal | float) -> str:
    """A number as text without zeros at its end.

    Example:
        >>> written(Decimal("5.0")), written(0.1), written(1e300)
        ('5', '0.1', '1E+300')
    """
    value = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    if not value:
        return "0"
    if not -30 < value.adjusted() < 30:
        return str(value.normalize(_EXACT))
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def from_relative(center: Sequence[Decimal], size: tuple[int, int]) -> Box | None:
    """Centre x, centre y, width and height as fractions of the image of `size` (height, width), in its pixels.

    None where a float cannot hold it.

    Example:
        >>> from_relative([Decimal("0.5"), Decimal("0.5"), Decimal("0.25"), Decimal("1")], (100, 80))
        (30.0, 0.0, 20.0, 100.0)
    """
    x, y, width, height = center
    in_x, in_y = Decimal(size[1]), Decimal(size[0])
    half = Decimal("0.5")
    left = _EXACT.multiply(_EXACT.subtract(x, _EXACT.multiply(width, half)), in_x)
    top = _EXACT.multiply(_EXACT.subtract(y, _EXACT.multiply(height, half)), in_y)
    box = float(left), float(top), float(_EXACT.multiply(width, in_x)), float(_EXACT.multiply(height, in_y))
    return box if all(map(math.isfinite, box)) else None


def to_relative(box: Sequence[float], size: tuple[int, int]) -> list[str]:
    """The inverse of `from_relative`: four texts with as few decimals, from 6 on, as it reads as exactly this box.

    Example:
        >>> to_relative([30.0, 0.0, 20.0, 100.0], (100, 80))
        ['0.500000', '0.500000', '0.250000', '1.000000']
        >>> to_relative([30.1, 0.0, 20.0, 100.0], (100, 90))
        ['0.445555555555555571', '0.500000000000000000', '0.222222222222222222', '1.000000000000000000']
    """
    wanted = tuple(map(float, box))
    for context, all_digits in ((_QUOTIENTS, _DIGITS), (_EXACT, (400,))):
        x, y, width, height = map(Decimal, wanted)
        x, y = (_EXACT.add(low, _EXACT.divide(side, Decimal(2))) for low, side in ((x, width), (y, height)))
        sides = (size[1], size[0], size[1], size[0])
        fractions = [
            context.divide(each, Decimal(side)) for each, side in zip((x, y, width, height), sides, strict=True)
        ]
        for digits in all_digits:
            texts = [f"{each:.{digits}f}" for each in fractions]
            if from_relative(list(map(Decimal, texts)), size) == wanted:
                return texts
    return texts
