"""Tiles of large images: where they lie, and which boxes a tile shows.

A *view* is what the network looks at: a square tile of the image, or the whole picture (`Tiling.keep_full`).

Shapes: V views of an image, M boxes; views are int64 (V, 4), xyxy, in pixels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BORDER_SHARE = 0.01
"""Of a tile's side: how near to a border a detection must end to be taken for a part of something larger."""


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    Attributes:
        size: side of a tile, pixels.
        overlap: pixels that neighbouring tiles share, at most half of `size`.
        min_visibility: boxes with a smaller share of their area in a tile are regions to ignore there.
        keep_full: the whole picture is a view, too, of images that have several tiles.
    """

    size: int
    overlap: int
    min_visibility: float = 0.5
    keep_full: bool = False

    @property
    def margin(self) -> float:
        """Pixels from the border of a tile: a detection that ends within them may be a part of something larger."""
        return min(BORDER_SHARE * self.size, self.overlap / 8)

    @property
    def reach(self) -> float:
        """The largest side of a box that some tile is sure to show whole and clear of `margin`."""
        return self.overlap - 2 * self.margin

    def num_views(self, image_size: tuple[int, int]) -> int:
        """How many views an image of `image_size` (height, width) has."""
        height, width = (len(tile_starts(side, self.size, self.overlap)) for side in image_size)
        return height * width + (self.keep_full and height * width > 1)

    def views(self, image_size: tuple[int, int]) -> np.ndarray:
        """The views of an image: its tiles row by row, then the whole picture."""
        return _views(self, tuple(image_size))

    def has_full(self, num_views: int) -> bool:
        """Whether the last of so many views of an image is the whole picture, beside its tiles."""
        return self.keep_full and num_views > 1


def tile_starts(length: int, size: int, overlap: int) -> np.ndarray:
    """Where tiles of `size` begin on a side of `length` pixels, (t,) int64; the last one is shifted to end with it.

    Example:
        >>> tile_starts(100, 40, 10).tolist(), tile_starts(101, 40, 10).tolist(), tile_starts(30, 40, 10).tolist()
        ([0, 30, 60], [0, 30, 60, 61], [0])
    """
    if length <= size:
        return np.zeros(1, dtype=np.int64)
    step = size - overlap
    count = -(-(length - size) // step) + 1
    return np.minimum(np.arange(count, dtype=np.int64) * step, length - size)


def tile_boxes(image_size: tuple[int, int], size: int, overlap: int) -> np.ndarray:
    """The tiles (V, 4) of an image of `image_size` (height, width), row by row; they end with a smaller image.

    Every pixel is in at least one, and every box with sides of up to `overlap` is whole in at least one.

    Example:
        >>> tile_boxes((30, 70), 40, 10).tolist()
        [[0, 0, 40, 30], [30, 0, 70, 30]]
    """
    height, width = image_size
    tops, lefts = (tile_starts(side, size, overlap) for side in image_size)
    y1, x1 = (each.reshape(-1) for each in np.meshgrid(tops, lefts, indexing="ij"))
    return np.stack([x1, y1, np.minimum(x1 + size, width), np.minimum(y1 + size, height)], axis=1)


@lru_cache(maxsize=64)  # the images of most data sets have few sizes
def _views(tiling: Tiling, image_size: tuple[int, int]) -> np.ndarray:
    views = tile_boxes(image_size, tiling.size, tiling.overlap)
    if tiling.has_full(len(views)):
        views = np.concatenate([views, [[0, 0, image_size[1], image_size[0]]]])
    views.setflags(write=False)
    return views


@dataclass(frozen=True)
class Shown:
    """What views show of the boxes of an image.

    Attributes:
        boxes: (V, M, 4) float32, in pixels of each view and clipped to it; without extent where it shows nothing.
        is_shown: (V, M) bool.
        is_ignored: (V, M) bool, shown but not to be trained on.
    """

    boxes: np.ndarray
    is_shown: np.ndarray
    is_ignored: np.ndarray


def show(boxes: np.ndarray, views: np.ndarray, tiling: Tiling, full: int | None = None) -> Shown:
    """What each of `views` shows of `boxes` (M, 4) float32, xyxy, in pixels of the image.

    In the whole picture, boxes that are sure to be whole in a tile are regions to ignore: scaled down they may be too
    small to be learnt, and in testing those of the tiles count.

    Args:
        full: index of the view that is the whole picture, if there is one.
    """
    corners, far_corners = boxes[None, :, :2].astype(np.float64), boxes[None, :, 2:].astype(np.float64)  # (1, M, 2)
    first, last = views[:, None, :2], views[:, None, 2:]  # (V, 1, 2)
    low, high = np.clip(corners, first, last), np.clip(far_corners, first, last)  # (V, M, 2)
    sides = far_corners - corners
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (high - low).prod(2) / sides.prod(2)  # (V, M)
    is_shown = ((high - low) > 0).all(2)
    is_ignored = is_shown & (share < tiling.min_visibility)
    if full is not None:
        is_ignored[full] |= is_shown[full] & (sides <= tiling.reach).all(2)[0]
    return Shown(np.concatenate([low - first, high - first], axis=2).astype(np.float32), is_shown, is_ignored)


def crop(image: np.ndarray, view: np.ndarray, size: int, fill: Sequence[float]) -> np.ndarray:
    """A copy of a tile (size, size, C) of an image (H, W, C) of any type; beyond the image it is `fill`, (C,)."""
    x1, y1, x2, y2 = view.tolist()
    part = image[y1:y2, x1:x2]
    if part.shape[:2] == (size, size):
        return part.copy()
    values = np.asarray(fill, dtype=np.float64)
    tile = np.empty((size, size, image.shape[2]), dtype=image.dtype)
    tile[:] = np.rint(values) if image.dtype.kind == "u" else values
    tile[: y2 - y1, : x2 - x1] = part
    return tile
