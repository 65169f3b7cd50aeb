from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from engine.visualize.axes import Panel, even_ticks, power_ticks

VALUES = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(VALUES, VALUES, st.integers(2, 9))
def test_even_ticks_enclose_in_equal_steps(one: float, other: float, most: int) -> None:
    low, high = sorted((one, other))
    if 0 < high - low < 1e-6 * max(abs(low), abs(high)):
        return  # finer than the numbers that a plot shows
    ticks = even_ticks(low, high, most)
    step = ticks[1] - ticks[0]
    slack = 1e-6 * step
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack and 2 <= len(ticks) <= most + 1
    assert all(b - a == pytest.approx(step) for a, b in zip(ticks, ticks[1:], strict=False))
    leading = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert any(leading == pytest.approx(factor) for factor in (1, 2, 5))


@given(st.floats(-9, 9), st.floats(-9, 9))
def test_power_ticks_enclose_and_are_not_many(one: float, other: float) -> None:
    low, high = sorted((10**one, 10**other))
    ticks = power_ticks(low, high)
    assert ticks[0] <= low * (1 + 1e-6) and ticks[-1] >= high * (1 - 1e-6)
    assert ticks == sorted(set(ticks)) and 2 <= len(ticks) <= 11


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(5, 5, [5, 10]), (10, 10, [10, 20]), (1000, 1e4, [1e3, 2e3, 5e3, 1e4])]
)
def test_power_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert power_ticks(low, high) == ticks


def test_positions_on_linear_and_logarithmic_axes() -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (200, 100)))
    panel = Panel(draw, (10, 20, 110, 70), (0, 50, 0, 2), float, math.log10)
    assert [panel.x(value) for value in (0, 25, 50)] == [10, 60, 110]
    assert [panel.y(value) for value in (1, 10, 100)] == [70, 45, 20]
