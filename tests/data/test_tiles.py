"""Where tiles lie, and what they show."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.tiles import Tiling, crop, show, tile_boxes, tile_starts


@pytest.mark.parametrize(
    ("length", "size", "overlap", "starts"),
    [
        (1, 40, 0, [0]),
        (40, 40, 0, [0]),
        (41, 40, 0, [0, 1]),
        (80, 40, 0, [0, 40]),
        (81, 40, 0, [0, 40, 41]),
        (81, 40, 20, [0, 20, 40, 41]),
        (70, 40, 10, [0, 30]),
        (99, 40, 10, [0, 30, 59]),
        (2048, 512, 64, [0, 448, 896, 1344, 1536]),
    ],
)
def test_starts(length: int, size: int, overlap: int, starts: list[int]) -> None:
    assert tile_starts(length, size, overlap).tolist() == starts


def test_tiles_row_by_row() -> None:
    assert tile_boxes((50, 70), 40, 10).tolist() == [
        [0, 0, 40, 40],
        [30, 0, 70, 40],
        [0, 10, 40, 50],
        [30, 10, 70, 50],
    ]


@pytest.mark.parametrize(
    ("size", "keep_full", "count", "last"),
    [
        ((50, 70), False, 4, [30, 10, 70, 50]),
        ((50, 70), True, 5, [0, 0, 70, 50]),
        ((40, 40), True, 1, [0, 0, 40, 40]),
        ((12, 20), True, 1, [0, 0, 20, 12]),
        ((12, 50), True, 3, [0, 0, 50, 12]),
    ],
)
def test_views(size: tuple[int, int], keep_full: bool, count: int, last: list[int]) -> None:
    tiling = Tiling(40, 10, keep_full=keep_full)
    views = tiling.views(size)
    assert tiling.num_views(size) == len(views) == count
    assert views[-1].tolist() == last


sides = st.integers(1, 300)
grids = st.integers(32, 90).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))


@given(sides, sides, grids)
def test_every_pixel_is_covered(height: int, width: int, grid: tuple[int, int]) -> None:
    size, overlap = grid
    covered = np.zeros((height, width), bool)
    tiles = tile_boxes((height, width), size, overlap)
    for x1, y1, x2, y2 in tiles.tolist():
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        assert x2 - x1 == min(size, width) and y2 - y1 == min(size, height)
        covered[y1:y2, x1:x2] = True
    assert covered.all() and len(np.unique(tiles, axis=0)) == len(tiles)


@given(sides, sides, grids, st.data())
def test_a_box_within_the_overlap_is_whole_somewhere(
    height: int, width: int, grid: tuple[int, int], data: st.DataObject
) -> None:
    size, overlap = grid
    w, h = (data.draw(st.integers(0, min(overlap, side))) for side in (width, height))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    tiles = tile_boxes((height, width), size, overlap)
    assert ((tiles[:, :2] <= (x, y)) & (tiles[:, 2:] >= (x + w, y + h))).all(1).any()


# ---------------------------------------------------------------- boxes

VIEWS = np.array([[0, 0, 40, 40], [30, 0, 70, 40], [0, 0, 70, 40]])


@pytest.mark.parametrize(
    ("box", "shown", "ignored"),
    [
        ([2, 3, 9, 8], {0: [2, 3, 9, 8], 2: [2, 3, 9, 8]}, []),
        ([30, 3, 40, 8], {0: [30, 3, 40, 8], 1: [0, 3, 10, 8], 2: [30, 3, 40, 8]}, []),
        ([20, 0, 60, 40], {0: [20, 0, 40, 40], 1: [0, 0, 30, 40], 2: [20, 0, 60, 40]}, [0]),  # 20 and 30 of 40 pixels
        ([38, 2, 48, 12], {0: [38, 2, 40, 12], 1: [8, 2, 18, 12], 2: [38, 2, 48, 12]}, [0]),
        ([40, 2, 48, 12], {1: [10, 2, 18, 12], 2: [40, 2, 48, 12]}, []),
    ],
)
def test_boxes_of_views(box: list[int], shown: dict[int, list[int]], ignored: list[int]) -> None:
    found = show(np.array([box], np.float32), VIEWS, Tiling(40, 0, min_visibility=0.6), full=2)
    assert found.boxes.dtype == np.float32
    assert {v: found.boxes[v, 0].tolist() for v in np.flatnonzero(found.is_shown[:, 0])} == shown
    assert np.flatnonzero(found.is_ignored[:, 0]).tolist() == ignored


def test_the_whole_picture_leaves_small_boxes_to_the_tiles() -> None:
    tiling = Tiling(400, 16)  # a margin of 2 pixels on either side leaves 12
    assert (tiling.margin, tiling.reach) == (2.0, 12.0)
    boxes = np.array([[0, 0, 12, 12], [0, 0, 13, 3], [0, 0, 30, 30]], np.float32)
    found = show(boxes, np.array([[0, 0, 800, 400]]), tiling, full=0)
    assert found.is_ignored.tolist() == [[True, False, False]]
    assert show(boxes, np.array([[0, 0, 800, 400]]), tiling).is_ignored.sum() == 0


def test_no_boxes() -> None:
    found = show(np.zeros((0, 4), np.float32), VIEWS, Tiling(40, 10))
    assert found.boxes.shape == (3, 0, 4) and found.is_shown.shape == (3, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_crops(dtype: type, channels: int) -> None:
    image = np.arange(50 * 70 * channels).reshape(50, 70, channels).astype(dtype)
    tile = crop(image, np.array([30, 10, 70, 50]), 40, [7.6] * channels)
    assert tile.dtype == dtype and (tile == image[10:50, 30:70]).all()
    tile[:] = 0
    assert image.any(axis=(0, 1)).all()  # a copy
    padded = crop(image, np.array([0, 0, 70, 50]), 80, [7.6] * channels)
    assert padded.shape == (80, 80, channels) and padded.dtype == dtype and (padded[:50, :70] == image).all()
    expected = 8 if dtype is np.uint8 else np.float32(7.6)
    assert (padded[50:] == expected).all() and (padded[:, 70:] == expected).all()
