from __future__ import annotations

import numpy as np
import pytest

from engine.visualize.mosaic import BACKGROUND, mosaic


def picture(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_row_by_row_with_gaps() -> None:
    pictures = [picture(10, 20, value) for value in (10, 20, 30)]
    sheet = mosaic(pictures, columns=2, cell_width=40, gap=2)
    assert sheet.shape == (2 * 20 + 3 * 2, 2 * 40 + 3 * 2, 3)
    assert (sheet[2:22, 2:42] == 10).all() and (sheet[2:22, 44:84] == 20).all()
    assert (sheet[24:44, 2:42] == 30).all() and (sheet[24:44, 44:84] == BACKGROUND).all()


def test_fewer_pictures_than_columns_make_no_empty_columns() -> None:
    assert mosaic([picture(10, 10, 0)], columns=4, cell_width=10, gap=1).shape == (12, 12, 3)


def test_pictures_of_different_shapes() -> None:
    pictures = [picture(5, 100, 1), picture(100, 5, 2), picture(1, 1, 3)]
    assert mosaic(pictures, columns=3, cell_width=20, gap=0).shape == (40, 60, 3)


@pytest.mark.parametrize("columns, count", [(0, 1), (2, 0)])
def test_nothing_to_show(columns: int, count: int) -> None:
    with pytest.raises(ValueError):
        mosaic([picture(5, 5, 0)] * count, columns)
