"""Samples of more than 8 bits, brought to 0..255 by a range of values.

What a 12-bit camera or a float TIFF stores is scaled so that `low` becomes 0 and `high` 255, in float32 and not
rounded; values outside are clipped. So it has the range of an 8-bit image, for which means and weights are made, and
keeps its levels.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

ValueRange = tuple[float, float]
"""(low, high), low < high, in the units of the samples."""

MOST = 1e30
"""The limit of `INPUT.VALUE_RANGE`."""
_MIDDLE = 1e-4
"""The share of the samples at either end that may be faulty pixels."""
_SAMPLES_PER_IMAGE = 1 << 18


def scaled(image: np.ndarray, value_range: ValueRange) -> np.ndarray:
    """The samples of `image`, integers or floats of any shape, from `value_range` to 0..255 as float32; NaN becomes 0.

    Example:
        >>> scaled(np.array([0, 96, 2056, 2546, 4016, 9999], np.uint16), (96, 4016)).tolist()
        [0.0, 0.0, 127.5, 159.375, 255.0, 255.0]
    """
    if image.dtype == np.uint16:  # the same bits as by the formula, several times faster
        return _table(*value_range).take(image)
    low, high = value_range
    # In float64: float32 has no room for small differences between large integers.
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinities are expected
        values = image.astype(np.float64)
        values -= low
        values *= 255.0 / (high - low)
    np.clip(values, 0, 255, out=values)
    return np.nan_to_num(values.astype(np.float32), copy=False, nan=0.0)


@lru_cache(maxsize=64)
def _table(low: float, high: float) -> np.ndarray:
    return scaled(np.arange(1 << 16, dtype=np.int64), (low, high))


def measured_range(images: Iterable[np.ndarray]) -> ValueRange | None:
    """The lowest and the highest finite sample of all `images`; None if there is none.

    Beyond `MOST` lies what floats use for "no data".

    Where 99.98 % of the samples span less than half of that, the others are taken for faulty (hot) pixels, which would
    make everything else dark, and do not count.

    Example:
        >>> measured_range([np.array([96, 4016], np.uint16), np.array([100], np.uint16)])
        (96.0, 4016.0)
    """
    lows, highs, middles = [], [], []
    for image in images:
        with np.errstate(over="ignore", invalid="ignore"):  # float16 has no MOST
            samples = image[np.abs(image) <= MOST] if image.dtype.kind == "f" else image.reshape(-1)
        if samples.size:
            lows.append(float(samples.min()))
            highs.append(float(samples.max()))
            middles.append(samples[:: -(-samples.size // _SAMPLES_PER_IMAGE)].astype(np.float64))
    if not lows:
        return None
    low, high = min(lows), max(highs)
    inner_low, inner_high = np.quantile(np.concatenate(middles), (_MIDDLE, 1 - _MIDDLE)).tolist()
    if 0 < inner_high - inner_low < (high - low) / 2:
        low, high = inner_low, inner_high
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def shown_range(value_range: ValueRange) -> str:
    """For messages.

    Example:
        >>> shown_range((96.0, 4016.0)), shown_range((-0.25, 1.0))
        ('96..4016', '-0.25..1')
    """
    return "..".join(f"{value:g}" if abs(value) < 1e5 else f"{value:.0f}" for value in value_range)
