"""Axes of plots, drawn with Pillow: frame, grid and labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from PIL import ImageDraw

from engine.visualize.colors import RGB
from engine.visualize.fonts import font_for

INK: RGB = (40, 40, 40)
GRID: RGB = (222, 222, 222)

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Panel:
    """One pair of axes on a picture; `x_scale` and `y_scale` make a value linear along its axis."""

    draw: ImageDraw.ImageDraw
    area: tuple[int, int, int, int]  # left, top, right, bottom, pixels
    limits: tuple[float, float, float, float]  # low and high x, low and high y, after the scales
    x_scale: Scale = math.log2
    y_scale: Scale = math.log2

    def x(self, value: float) -> float:
        (left, _, right, _), (low, high, _, _) = self.area, self.limits
        return left + (self.x_scale(value) - low) / (high - low) * (right - left)

    def y(self, value: float) -> float:
        (_, top, _, bottom), (_, _, low, high) = self.area, self.limits
        return bottom - (self.y_scale(value) - low) / (high - low) * (bottom - top)

    def frame(self, title: str, ticks: Sequence[float], labels: Sequence[str], y_ticks: Sequence[float] = ()) -> None:
        """Draw the title, the grid lines with their labels, and the border."""
        left, top, right, bottom = self.area
        for value, label in zip(ticks, labels, strict=True):
            self.draw.line([(self.x(value), top), (self.x(value), bottom)], fill=GRID)
            self.text((self.x(value), bottom + 4), label, 13, "ma")
        for value in y_ticks:
            self.draw.line([(left, self.y(value)), (right, self.y(value))], fill=GRID)
            self.text((left - 6, self.y(value)), f"{value:g}", 13, "rm")
        self.text((left, top - 8), title, 16, "ls")
        self.draw.rectangle(self.area, outline=INK)

    def text(self, position: tuple[float, float], text: str, size: int, anchor: str, color: RGB = INK) -> None:
        self.draw.text(position, text, fill=color, font=font_for(text, size), anchor=anchor)


def even_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that enclose [low, high] in at most `most` steps.

    Example:
        >>> even_ticks(0.07, 0.93)
        [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        >>> even_ticks(3, 3, most=2)
        [2.5, 3.0, 3.5]
    """
    if low == high:
        half = 10.0 ** math.floor(math.log10(abs(low) or 1)) / 2
        low, high = low - half, high + half
    power = math.floor(math.log10((high - low) / most))
    steps = (factor * 10.0**k for k in count(power) for factor in (1, 2, 5))
    slack = 1e-9  # because 0.3 / 0.1 < 3
    step = next(s for s in steps if math.ceil(high / s - slack) - math.floor(low / s + slack) <= most)
    indices = range(math.floor(low / step + slack), math.ceil(high / step - slack) + 1)
    return [round(k * step, max(2 - power, 0)) for k in indices]


def power_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose the positive [low, high], with their multiples by 2 and 5 if there are few.

    Example:
        >>> power_ticks(0.3, 4)
        [0.2, 0.5, 1.0, 2.0, 5.0]
        >>> power_ticks(0.003, 40)
        [0.001, 0.01, 0.1, 1.0, 10.0, 100.0]
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    stride = math.ceil((last - first) / 8) or 1
    ticks = [float(f"{factor}e{k}") for k in range(first, last + stride, stride) for factor in factors]
    start = max(k for k, tick in enumerate(ticks) if tick <= low * (1 + 1e-9))
    end = min(k for k, tick in enumerate(ticks) if tick >= high * (1 - 1e-9))
    return ticks[start : max(end, start + 1) + 1]
