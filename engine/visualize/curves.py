"""Curves over iterations, drawn with Pillow (frames, names) and OpenCV (antialiased lines)."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Container, Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from engine.visualize.axes import INK, Panel, even_ticks, power_ticks
from engine.visualize.colors import RGB, faded, to_bgr
from engine.visualize.fonts import font_for

BLUE, ORANGE, GREEN, PURPLE = (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 90, 160)
GREY, NAVY, OCHRE = (120, 120, 120), (0, 60, 90), (170, 130, 0)
FIRST: tuple[RGB, ...] = (BLUE, ORANGE, GREEN, PURPLE, GREY, NAVY, OCHRE)
"""For up to seven curves; colour-blind readers can tell them apart too (after Okabe & Ito, 2008)."""

WIDTH, PANEL_HEIGHT, MARGIN = 1280, 330, 20
AXIS = 60  # pixels for the numbers of the y axis
LEGEND_ROW, LEGEND_LINE = 24, 26  # height of a row, length of its line sample
MAX_NAME = 70  # characters in the legend
FEW_POINTS = 60  # up to this number each point of a curve is marked
SUBPIXEL_BITS = 4

Curves = Mapping[str, np.ndarray]
"""Run name -> (N, 2) iterations and values; a value that is not finite interrupts the line."""


def curves_plot(
    panels: Mapping[str, Curves], smooth: int = 1, is_log: bool = False, exact: Container[str] = ()
) -> np.ndarray:
    """One panel per figure, with one line per run, all over the same range of iterations.

    Args:
        panels: curves by title. A run has the same colour in all panels.
        smooth: number of neighbouring points to average; the points themselves are drawn faintly. Curves with fewer
            than twice as many points are not smoothed.
        is_log: logarithmic y axes, if all values are positive and the largest is over three times the smallest.
        exact: titles of panels without noise, which are never smoothed.

    Returns:
        BGR uint8 (H, 1280, 3).
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    colors = dict(zip(names, line_colors(len(names)), strict=True))
    legend = _legend_places(names)
    columns = min(len(panels), 2)
    top = legend[-1][1] + LEGEND_ROW // 2 if legend else MARGIN
    canvas = Image.new("RGB", (WIDTH, top + PANEL_HEIGHT * math.ceil(len(panels) / columns)), "white")
    draw = ImageDraw.Draw(canvas)
    last = max((curve[-1, 0] for curves in panels.values() for curve in curves.values() if len(curve)), default=0)
    frames = []
    for k, (title, curves) in enumerate(panels.items()):
        left = MARGIN + AXIS + k % columns * (WIDTH // columns)
        right = (k % columns + 1) * (WIDTH // columns) - MARGIN
        upper = top + k // columns * PANEL_HEIGHT + 30
        frames.append(_frame(draw, (left, upper, right, upper + PANEL_HEIGHT - 80), title, curves, last, is_log))
    for name, (x, y, text) in zip(names, legend, strict=True):
        draw.line([(x, y), (x + LEGEND_LINE, y)], fill=colors[name], width=3)
        draw.text((x + LEGEND_LINE + 8, y), text, fill=INK, font=font_for(text, 14), anchor="lm")
    image = to_bgr(canvas)
    for panel, (title, curves) in zip(frames, panels.items(), strict=True):
        lines = dict(curves)
        for name, curve in curves.items():
            if title not in exact and 1 < smooth <= len(curve) // 2:
                lines[name] = np.stack([curve[:, 0], smoothed(curve[:, 1], smooth)], axis=1)
                _draw_line(image, panel, curve, faded(colors[name], 0.3), 1)
        for name, line in lines.items():  # after the faint points of all runs, which would hide parts of them
            _draw_line(image, panel, line, colors[name], 2)
    return image


def line_colors(number: int) -> list[RGB]:
    """`number` different colours that are clear on white."""
    if number <= len(FIRST):
        return list(FIRST[:number])
    shades = (colorsys.hsv_to_rgb(k / number, 0.95, (0.8, 0.5)[k % 2]) for k in range(number))
    return [tuple(round(255 * channel) for channel in shade) for shade in shades]


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Means over `window` neighbours of each of the (N,) `values`, fewer at the ends; gaps stay gaps.

    Example:
        >>> smoothed(np.array([0.0, 3.0, np.nan, 3.0, 9.0]), 3).tolist()
        [1.5, 1.5, nan, 6.0, 6.0]
    """
    finite = np.isfinite(values)
    ones, start = np.ones(window), window // 2
    sums = np.convolve(np.where(finite, values, 0), ones)[start : start + len(values)]
    counts = np.convolve(finite, ones)[start : start + len(values)]
    return np.where(finite, sums / counts.clip(min=1), np.nan)


def _frame(
    draw: ImageDraw.ImageDraw, area: tuple[int, int, int, int], title: str, curves: Curves, last: float, is_log: bool
) -> Panel:
    values = np.concatenate([np.zeros(0), *(curve[:, 1] for curve in curves.values())])
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    is_log = is_log and 0 < 3 * low < high
    y_ticks = power_ticks(low / 1.05, high * 1.05) if is_log else _value_ticks(low, high)
    scale = math.log10 if is_log else float
    panel = Panel(draw, area, (0, max(last, 1) * 1.01, scale(y_ticks[0]), scale(y_ticks[-1])), float, scale)
    x_ticks = [tick for tick in even_ticks(0, max(last, 1), 8) if tick <= max(last, 1)]
    panel.frame(title, x_ticks, [f"{tick:g}" if tick < 1e5 else f"{tick / 1000:g}k" for tick in x_ticks], y_ticks)
    panel.text(((area[0] + area[2]) / 2, area[3] + 21), "iteration", 12, "ma", (120, 120, 120))
    return panel


def _value_ticks(low: float, high: float) -> list[float]:
    """Even ticks with some room above and below the values; starts at 0 if that is near."""
    room = 0.03 * (high - low)
    if 0 <= low == high:
        return even_ticks(0.0, 2 * high or 1.0)
    if 0 <= low < 0.4 * high:
        return even_ticks(0.0, high + room)
    return even_ticks(low - room, high + room)


def _draw_line(image: np.ndarray, panel: Panel, curve: np.ndarray, color: RGB, width: int) -> None:
    """Draw the finite points, join neighbours by lines, and mark points that are few or alone."""
    bgr = color[::-1]
    ends = np.flatnonzero(np.diff(np.isfinite(curve[:, 1]))) + 1  # where a gap begins or ends
    for piece in np.split(curve, ends):
        if not np.isfinite(piece[:, 1]).any():  # a gap, or a curve without points
            continue
        points = [(panel.x(x), panel.y(y)) for x, y in piece]
        fixed = np.round(np.array(points) * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.polylines(image, [fixed], False, bgr, width, cv2.LINE_AA, SUBPIXEL_BITS)
        if len(curve) <= FEW_POINTS or len(points) == 1:
            for x, y in fixed.tolist():
                cv2.circle(image, (x, y), 4 * 2**SUBPIXEL_BITS, bgr, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)


def _legend_places(names: Sequence[str]) -> list[tuple[float, int, str]]:
    """For each name (x, y) where its entry begins, in rows that fit the width of the picture, and the text to show.

    A long name is cut at the start, since the ends of paths differ more often.
    """
    x, y = float(MARGIN), MARGIN + LEGEND_ROW // 2
    places = []
    for name in names:
        text = name if len(name) <= MAX_NAME else f"...{name[3 - MAX_NAME :]}"
        width = LEGEND_LINE + 8 + font_for(text, 14).getlength(text) + 28
        if places and x + width > WIDTH - MARGIN:
            x, y = float(MARGIN), y + LEGEND_ROW
        places.append((x, y, text))
        x += width
    return places
