from __future__ import annotations

import numpy as np
import pytest

from engine.data.value_range import measured_range, scaled


@pytest.mark.parametrize("value_range", [(96.0, 4016.0), (0.0, 65535.0), (-100.0, 300.5)])
def test_the_table_of_uint16_is_the_formula(value_range: tuple[float, float]) -> None:
    values = np.arange(65536, dtype=np.uint16)
    low, high = value_range
    expected = ((values.astype(float) - low) * (255 / (high - low))).clip(0, 255).astype(np.float32)
    for each in (values, values.astype(np.int32), values.astype(np.float64)):
        found = scaled(each, value_range)
        assert found.dtype == np.float32 and (found == expected).all()
    assert (np.diff(scaled(values, (0.0, 65535.0))) > 0).all()  # no two values of 16 bits become one


def test_a_float_range() -> None:
    values = np.array([-1, 0, 0.25, 0.5, 1, 2, np.nan, np.inf, -np.inf], np.float32)
    assert scaled(values, (0, 1)).tolist() == [0, 0, 63.75, 127.5, 255, 255, 0, 255, 0]


def test_measured_over_all_images() -> None:
    images = [np.array([[500, 4016]], np.uint16), np.array([[96, 200]], np.uint16)]
    assert measured_range(images) == (96.0, 4016.0)
    assert measured_range([np.array([np.nan, -0.5, 2.0, np.inf])]) == (-0.5, 2.0)
    assert measured_range([]) is None and measured_range([np.array([np.nan])]) is None
    assert measured_range([np.array([-3.4e38, 1.0, 5.0, 1e300], np.float64)]) == (1.0, 5.0)  # "no data"
    for constant in (7, 0, -1e29):
        low, high = measured_range([np.full((2, 2), constant, np.float64)])
        assert low == constant < high and scaled(np.array([constant]), (low, high)).tolist() == [0]


def test_hot_pixels_do_not_darken_everything() -> None:
    image = np.linspace(96, 4016, 200 * 300).reshape(200, 300).astype(np.uint16)
    image[10, 10] = image[50, 20] = 65535
    low, high = measured_range([image, image])
    assert 96 <= low < 100 and 4010 < high <= 4016
    image[image < 65535] //= 2
    image[:, 100:110] = 9000  # a few per cent are no faulty pixels
    assert measured_range([image])[1] == pytest.approx(9000)
