"""The one form that annotations of every format take: flat arrays, images and categories by row.

Shapes: n images, c categories, m annotations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ImageId = int | str


@dataclass(frozen=True)
class AnnotationTable:
    """All that an annotation file says, in its order; nothing is dropped or clipped here.

    Attributes:
        image_ids: n ids, all integers or all strings.
        file_names: n names, relative to the folder of the images.
        sizes: (n, 2) int32 (height, width) of each image as the file states it, 0 where it does not.
        category_ids: c integers in ascending order, perhaps with gaps.
        category_names: c names, in the order of `category_ids`.
        image_rows: (m,) int64 index into the images.
        category_rows: (m,) int64 index into the categories.
        boxes_xywh: (m, 4) float64 x, y, width, height in pixels, as written.
        areas: (m,) float64 square pixels, as written, else width x height.
        crowd: (m,) bool, True for regions that are neither positive nor negative.
    """

    image_ids: Sequence[ImageId]
    file_names: Sequence[str]
    sizes: np.ndarray
    category_ids: list[int]
    category_names: list[str]
    image_rows: np.ndarray
    category_rows: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
