from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.visualize.curves import FIRST, WIDTH, curves_plot, line_colors, smoothed

BLUE, ORANGE = (np.array(color[::-1]) for color in FIRST[:2])  # BGR


def curve(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float).reshape(-1, 2)


def places(image: np.ndarray, color: np.ndarray, top: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) of the pixels of a colour below the legend."""
    rows, columns = np.nonzero((image[top:] == color).all(-1))
    return rows + top, columns


@given(st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=30), st.integers(1, 12))
def test_smoothed_is_the_mean_of_the_neighbours(values: list[float], window: int) -> None:
    expected = []
    for k, value in enumerate(values):
        near = [v for v in values[max(k - (window - 1 - window // 2), 0) : k + window // 2 + 1] if not math.isnan(v)]
        expected.append(math.nan if math.isnan(value) else sum(near) / len(near))
    assert smoothed(np.array(values), window) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("number", [1, 7, 8, 40])
def test_colours_differ_and_stand_out_from_white(number: int) -> None:
    colors = line_colors(number)
    assert len(set(colors)) == number and all(min(color) < 130 for color in colors)


def test_a_falling_curve_falls_and_a_higher_one_is_higher() -> None:
    falling = curve(*((k, 10 - k / 100) for k in range(0, 900, 10)))
    image = curves_plot({"loss": {"a": falling, "b": falling + [0, 1]}})
    assert image.shape[1:] == (WIDTH, 3) and image.dtype == np.uint8
    (blue_rows, blue_columns), (orange_rows, _) = places(image, BLUE), places(image, ORANGE)
    left, right = blue_columns < blue_columns.min() + 20, blue_columns > blue_columns.max() - 20
    assert blue_rows[left].max() < blue_rows[right].min()
    assert orange_rows.min() < blue_rows.min() and orange_rows.max() < blue_rows.max()


def test_one_point_is_a_dot() -> None:
    rows, columns = places(curves_plot({"AP": {"a": curve((500, 0.3))}}), BLUE)
    assert 5 <= np.ptp(rows) <= 9 and 5 <= np.ptp(columns) <= 9


def test_gaps_are_not_bridged() -> None:
    values = [(k, 1.0 if not 40 <= k < 60 else math.nan) for k in range(100)]
    _, columns = places(curves_plot({"loss": {"a": curve(*values)}}), BLUE)
    gaps = np.diff(np.unique(columns))
    assert gaps.max() > 150 and (gaps > 1).sum() == 1


def test_panels_share_the_iterations_and_the_colours() -> None:
    """The second run is in the second panel only, at the end of the first one's iterations."""
    first = {"a": curve(*((k, 1.0) for k in range(0, 1001, 10)))}
    second = {"a": curve(), "b": curve((1000, 0.5))}
    image = curves_plot({"loss": first, "AP": second})
    _, blue = places(image, BLUE)
    _, orange = places(image, ORANGE)
    assert blue.max() < WIDTH / 2 < orange.min()
    assert orange.mean() - WIDTH / 2 == pytest.approx(blue.max(), abs=3)


def test_smoothing_leaves_the_points_faint_and_short_or_exact_curves_alone() -> None:
    noise = np.random.default_rng(0).normal(5, 1, 400)
    noisy = np.stack([np.arange(400.0), noise], axis=1)
    raw = curves_plot({"loss": {"a": noisy}})
    smooth = curves_plot({"loss": {"a": noisy}}, smooth=20)
    assert np.ptp(places(smooth, BLUE)[0]) < np.ptp(places(raw, BLUE)[0]) / 2
    assert len(np.unique(smooth.reshape(-1, 3), axis=0)) > 3
    assert (curves_plot({"loss": {"a": noisy}}, smooth=201) == raw).all()
    assert (curves_plot({"loss": {"a": noisy}}, smooth=20, exact=["loss"]) == raw).all()


def test_logarithmic_where_values_allow_it() -> None:
    powers = curve(*((k, 10.0 ** (-k / 100)) for k in range(400)))
    rows, columns = places(curves_plot({"loss": {"a": powers}}, is_log=True), BLUE)
    middle = np.abs(columns - columns.mean()) < 3  # halfway of a straight line
    assert rows[middle].mean() == pytest.approx((rows.min() + rows.max()) / 2, abs=6)
    with_zero = np.concatenate([powers, [[400, 0.0]]])
    for values in (with_zero, powers[:40]):
        assert (curves_plot({"loss": {"a": values}}, is_log=True) == curves_plot({"loss": {"a": values}})).all()


def test_nothing_finite_is_an_empty_panel() -> None:
    image = curves_plot({"loss": {"a": curve((1, math.nan)), "b": curve()}})
    assert len(places(image, BLUE)[0]) == len(places(image, ORANGE)[0]) == 0


def test_many_long_names_make_more_rows_of_the_legend() -> None:
    few, many = (curves_plot({"loss": {f"{k}{'n' * 90}": curve((1, 1)) for k in range(n)}}) for n in (1, 9))
    assert len(many) > len(few) + 50
