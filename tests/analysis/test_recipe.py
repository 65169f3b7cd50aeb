"""The choices, by hand; the first tables are the sets of docs/results.md, whose settings were found by trying."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.analysis import recipe
from engine.analysis.recipe import Limits, TilePlan

CPU = Limits(area=800 * 800, least_side=224, pixels=math.inf)


@pytest.mark.parametrize(
    ("image_size", "small", "short"),
    [
        ((480, 640), 39.5, 240),  # bccd, as by hand
        ((640, 640), 28.8, 448),  # deeppcb, as by hand
        ((256, 320), 9.9, 384),  # fabric: 1.5 times is the limit
        ((480, 640), 300.0, 224),  # large objects keep some detail
        ((100, 120), 90.0, 96),  # a small image is not enlarged for that
        ((3000, 4000), 20.0, 688),  # as many pixels as a training image may have
    ],
)
def test_input_size_without_a_time_budget(image_size: tuple[int, int], small: float, short: int) -> None:
    assert recipe.scaled_sides(image_size, recipe.choose_scale(image_size, small, CPU).value)[0] == short


def test_a_short_budget_buys_smaller_images() -> None:
    wanted = 448 * 448
    for samples, area in ((4000, wanted), (1000, wanted / 2), (100, wanted * 100 / 2000)):
        limits = Limits(800 * 800, 224, pixels=samples * wanted)
        choice = recipe.choose_scale((640, 640), 640 * 20 / 448, limits)
        assert (choice.value * 640) ** 2 == pytest.approx(area)
        assert ("enough steps" in choice.reason) == (samples < 4000)


def test_small_objects_are_those_of_the_smallest_usual_class() -> None:
    sizes, labels = np.array([100.0] * 990 + [10.0] * 9), np.array([0] * 990 + [1] * 9)
    assert recipe.small_object_size(sizes, labels) == 100  # nine boxes decide nothing
    assert recipe.small_object_size(np.append(sizes, 10.0), np.append(labels, 1)) == 10
    assert recipe.small_object_size(np.arange(101.0), np.zeros(101)) == 10  # the tenth percentile


@pytest.mark.parametrize(
    ("image_size", "size", "scale", "area", "plan"),
    [
        ((2048, 2048), 16.0, 0.2, 400**2, TilePlan(384, 64, 384)),
        ((6000, 4000), 20.0, 0.1, 320**2, TilePlan(384, 64, 320)),  # 20 pixels become 17
        ((2048, 2048), 60.0, 0.2, 400**2, None),  # 12 pixels in whole images are enough
        ((480, 640), 16.0, 0.5, 400**2, None),  # hardly larger than a tile
        ((2048, 2048), 16.0, 1.1, 400**2, None),  # whole images show them as large
    ],
)
def test_tiles(image_size: tuple[int, int], size: float, scale: float, area: float, plan: TilePlan | None) -> None:
    choice = recipe.choose_tiles(image_size, np.full(20, size), size, scale, area)
    assert (choice.value if choice else None) == plan


def test_tiles_keep_the_whole_image_for_large_objects() -> None:
    sizes = np.array([16.0] * 95 + [200.0] * 5)
    assert recipe.choose_tiles((2048, 2048), sizes, 16.0, 0.2, 400**2).value.keep_full


@pytest.mark.parametrize(
    ("samples", "images", "most", "batch"),
    [(7999, 300, 8, 4), (8000, 300, 8, 8), (10**6, 300, 16, 16), (10**6, 300, 2, 2), (5000, 3, 8, 3), (1, 1, 8, 1)],
)
def test_batch(samples: int, images: int, most: int, batch: int) -> None:
    assert recipe.choose_batch(samples, images, most).value == batch


@pytest.mark.parametrize(
    ("seconds", "budget", "reserved", "images", "batch", "iterations"),
    [
        (0.4, 600, 40, 292, 8, 1400),  # bccd in ten minutes on machine A
        (0.4, 600, 40, 20, 8, 1000),  # 200 passes over 20 images would be 500 steps, and 1000 are the least
        (1e-4, 3600, 0, 100_000, 16, 1_250_000),  # 200 passes
        (30.0, 60, 30, 1000, 4, 1),
    ],
)
def test_iterations(seconds: float, budget: float, reserved: float, images: int, batch: int, iterations: int) -> None:
    assert recipe.choose_iterations(seconds, budget, reserved, images, batch).value == iterations


@given(st.lists(st.integers(32, 800), min_size=1, max_size=6), st.floats(1, 3), st.integers(1, 16), st.integers(1, 64))
def test_the_area_of_a_batch_lies_between_those_of_its_sides(
    sides: list[int], long_side: float, batch: int, divisibility: int
) -> None:
    least, most = (recipe.batch_area([each], long_side, 1, divisibility) for each in (min(sides), max(sides)))
    area = recipe.batch_area(sides, long_side, batch, divisibility)
    assert least * (1 - 1e-9) <= area <= most * (1 + 1e-9)
    assert area <= recipe.batch_area(sides, long_side, batch + 1, divisibility) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("names", "flips"),
    [
        (["scratch", "dent"], (0.5, 0.5)),
        (["person", "car", "scratch"], (0.5, 0.0)),
        (["person", "scratch", "dent"], (0.5, 0.5)),  # one of three
        (["Left_Shoe"], (0.0, 0.0)),
        (["1", "2", "3"], (0.5, 0.5)),  # ids of nameless classes
        ([*"0123456789"], (0.0, 0.0)),  # digits
        ([], (0.5, 0.5)),
    ],
)
def test_flips_by_name(names: list[str], flips: tuple[float, float]) -> None:
    found = recipe.choose_horizontal_flip(names), recipe.choose_vertical_flip(names, np.array([]))
    assert tuple(each.value for each in found) == flips


@pytest.mark.parametrize(
    ("mean", "deviation", "count", "flip"),
    [(0.6, 0.5, 40, 0.0), (-0.6, 0.5, 40, 0.5), (0.1, 0.1, 40, 0.5), (0.6, 0.5, 4, 0.5), (0.3, 3.0, 40, 0.5)],
)
def test_light_from_above_tells_an_upper_side(mean: float, deviation: float, count: int, flip: float) -> None:
    values = mean + deviation * np.tile([-1.0, 1.0], count // 2)
    assert recipe.choose_vertical_flip(["hole"], values).value == flip


@pytest.mark.parametrize(("passes", "count"), [(3, 1), (19.9, 1), (20, 5), (math.inf, 5)])
def test_training_sizes(passes: float, count: int) -> None:
    sides = recipe.choose_train_sides(448, passes).value
    assert len(sides) == count and 448 in sides and all(side % recipe.STEP == 0 for side in sides)


@given(st.floats(1, 5000), st.floats(1, 5000), st.floats(0.5, 2000), st.floats(1e6, 1e12), st.sampled_from([224, 480]))
def test_every_data_set_gets_a_size(height: float, width: float, small: float, pixels: float, least: int) -> None:
    size = (math.ceil(height), math.ceil(width))
    choice = recipe.choose_scale(size, small, Limits(800 * 800, least, pixels))
    short, long = recipe.scaled_sides(size, choice.value)
    assert 0 < choice.value <= 1.5 and 32 <= short <= long and "\n" not in choice.reason
