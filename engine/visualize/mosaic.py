"""Several pictures in one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

BACKGROUND = 34  # grey level


def mosaic(images: Sequence[np.ndarray], columns: int = 4, cell_width: int = 480, gap: int = 8) -> np.ndarray:
    """BGR uint8 pictures arranged in rows, as one picture.

    Each picture keeps its proportions and fills the width of its column; a row is as high as its highest picture.

    Args:
        images: at least one, each (H, W, 3) of any size.
        columns: maximum number of pictures per row.
        cell_width: width of a column in pixels.
        gap: pixels between pictures and at the border.

    Raises:
        ValueError: no pictures, or a number or width that is not positive.

    Example:
        >>> mosaic([np.zeros((10, 20, 3), np.uint8)] * 3, columns=2, cell_width=40, gap=2).shape
        (46, 86, 3)
    """
    if not images or columns < 1 or cell_width < 1 or gap < 0:
        raise ValueError("mosaic needs pictures, columns >= 1, cell_width >= 1 and gap >= 0")
    columns = min(columns, len(images))
    cells = [_fit(image, cell_width) for image in images]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    width = columns * (cell_width + gap) + gap
    sheet = np.full((sum(heights) + gap * (len(rows) + 1), width, 3), BACKGROUND, dtype=np.uint8)
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            x = gap + column * (cell_width + gap) + (cell_width - cell.shape[1]) // 2
            y = top + (height - cell.shape[0]) // 2
            sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
        top += height + gap
    return sheet


def _fit(image: np.ndarray, width: int) -> np.ndarray:
    """Scale to `width`; a very high picture is scaled to a height of twice that."""
    scale = min(width / image.shape[1], 2 * width / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, math.floor(image.shape[0] * scale + 0.5))
    # Averages of areas do not alias when a picture shrinks, but look like blocks when it grows.
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
