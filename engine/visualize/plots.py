"""Plots drawn with Pillow: boxes and anchors by width and height, and histograms. Images are BGR uint8 (H, W, 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from engine.visualize.axes import INK, Panel
from engine.visualize.colors import RGB, faded, to_bgr

BARS: RGB = (120, 160, 205)
SETS: tuple[RGB, ...] = ((214, 69, 65), (31, 140, 80), (150, 80, 190))
NUM_BINS = 48  # of a histogram
CELL = 6  # size in pixels of a cell of the density plot
RATIO_LINES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
MOST_TICKS = 5  # for ratios, on each side of 1:1


def anchors_plot(shapes: np.ndarray, anchors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Boxes and anchors by width and height, by size and by ratio.

    Args:
        shapes: (M, 2) widths and heights of boxes in pixels.
        anchors: (A, 2) widths and heights by name of the set of anchors.

    Returns:
        BGR uint8 (640, 1200, 3).
    """
    canvas = Image.new("RGB", (1200, 640), "white")
    draw = ImageDraw.Draw(canvas)
    everything = np.concatenate([shapes, *anchors.values()]).clip(min=1)
    low = math.floor(math.log2(everything.min()))
    high = max(math.ceil(math.log2(everything.max()) + 1e-9), low + 1)  # equal shapes need an axis of some length, too
    powers = [2.0**p for p in range(low, high + 1)]
    shapes = shapes.clip(min=1)

    plane = Panel(draw, (60, 50, 600, 590), (low, high, low, high))
    plane.frame("boxes by width and height (pixels)", powers, [f"{p:g}" for p in powers], powers)
    _density(plane, shapes)
    for ratio in RATIO_LINES:
        _ratio_line(plane, ratio)
    draw.rectangle(plane.area, outline=INK)  # again: cells and lines lie on the border
    for color, members in zip(SETS, anchors.values(), strict=False):
        for width, height in members.clip(min=1):
            x, y = plane.x(width), plane.y(height)
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], outline="white", width=4)
            draw.ellipse([x - 5, y - 5, x + 5, y + 5], outline=color, width=2)
    for i, (color, name) in enumerate(zip(SETS, anchors, strict=False)):
        x = 672 + 230 * i
        draw.ellipse([x, 606, x + 10, 616], outline=color, width=2)
        plane.text((x + 16, 611), name, 14, "lm")

    sizes = Panel(draw, (672, 50, 1160, 270), (low, high, 0, 1))
    sizes.frame("boxes by size: square root of the area", powers, [f"{p:g}" for p in powers])
    _histogram(sizes, np.sqrt(shapes.prod(-1)), {name: np.sqrt(a.prod(-1)) for name, a in anchors.items()})
    ratios, marks = shapes[:, 1] / shapes[:, 0], {name: a[:, 1] / a[:, 0] for name, a in anchors.items()}
    reach = max(3, math.ceil(np.abs(np.log2(np.concatenate([ratios, *marks.values()]))).max()))
    ticks = [2.0**p for p in range(-reach, reach + 1) if p % math.ceil(reach / MOST_TICKS) == 0]
    by_ratio = Panel(draw, (672, 340, 1160, 560), (-reach, reach, 0, 1))
    by_ratio.frame("boxes by ratio: height to width", ticks, [_ratio_name(p) for p in ticks])
    _histogram(by_ratio, ratios, marks)
    return to_bgr(canvas)


def _density(panel: Panel, shapes: np.ndarray) -> None:
    left, top, right, bottom = panel.area
    cells = (right - left) // CELL, (bottom - top) // CELL
    counts, _, _ = np.histogram2d(*np.log2(shapes).T, bins=cells, range=np.reshape(panel.limits, (2, 2)))
    for column, row in zip(*counts.nonzero(), strict=True):
        # Logarithmic, so that a single box is visible beside a thousand others.
        shade = 0.25 + 0.75 * math.log1p(counts[column, row]) / math.log1p(counts.max())
        x0, y1 = left + column * CELL, bottom - row * CELL
        panel.draw.rectangle([x0, y1 - CELL + 1, x0 + CELL - 1, y1], fill=faded((20, 70, 130), shade))


def _ratio_line(panel: Panel, ratio: float) -> None:
    """Draw the line height = ratio x width, with its name at the edge of the panel."""
    x_low, x_high, y_low, y_high = panel.limits
    low, high = max(x_low, y_low - math.log2(ratio)), min(x_high, y_high - math.log2(ratio))
    if low >= high:
        return
    ends = [(panel.x(2.0**p), panel.y(2.0**p * ratio)) for p in (low, high)]
    panel.draw.line(ends, fill=(170, 170, 170))
    panel.text((ends[1][0] - 4, ends[1][1] + 4), _ratio_name(ratio), 12, "ra", (130, 130, 130))


def _ratio_name(ratio: float) -> str:
    return f"{ratio:g}:1" if ratio >= 1 else f"1:{1 / ratio:g}"


def _histogram(panel: Panel, values: np.ndarray, marks: Mapping[str, np.ndarray]) -> None:
    left, top, right, bottom = panel.area
    counts, edges = np.histogram(np.log2(values), bins=NUM_BINS, range=panel.limits[:2])
    for k in counts.nonzero()[0]:
        height = max((bottom - top - 24) * counts[k] / counts.max(), 1)  # the marks stand above the highest bar
        box = [panel.x(2.0 ** edges[k]), bottom - height, panel.x(2.0 ** edges[k + 1]) - 1, bottom]
        panel.draw.rectangle(box, fill=BARS)
    for i, (color, members) in enumerate(zip(SETS, marks.values(), strict=False)):
        for value in np.unique(members.round(4)):
            x, y = panel.x(value), top + 6 + 9 * i
            panel.draw.polygon([(x - 4, y - 4), (x + 4, y - 4), (x, y + 4)], fill=color)
    panel.draw.rectangle(panel.area, outline=INK)
