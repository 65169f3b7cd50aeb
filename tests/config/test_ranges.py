"""Every number of the tree has a range: what is beyond is one line before anything is built."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from engine.config import load_config
from engine.config.coerce import BadValueError, read
from engine.config.declaration import number_type
from engine.config.keys import KEYS
from engine.errors import InputError

FREE = {"INPUT.VALUE_RANGE": "the values of images of any sensor, in its own unit"}
"""The keys that may be any number, and why."""
FIELDS = [field for key in KEYS.values() if key.entries for field in key.entries.fields.values()]
NUMBERS = [key for key in (*KEYS.values(), *FIELDS) if number_type(key.type)]
SIZES = [
    "INPUT.MIN_SIZE_TRAIN",
    "INPUT.MAX_SIZE_TRAIN",
    "INPUT.MIN_SIZE_TEST",
    "INPUT.MAX_SIZE_TEST",
    "TEST.BBOX_AUG.SCALES",
    "TEST.BBOX_AUG.MAX_SIZE",
]


def filled(key, number):
    """A value of the key in which each number is this one."""

    def fill(type_, default):
        if not get_args(type_):
            return number
        default = default or (0,) * (1 if get_args(type_)[-1] is Ellipsis else 2)
        return tuple(fill(get_args(type_)[0], each if isinstance(each, tuple) else ()) for each in default)

    return fill(key.type, key.default)


@pytest.mark.parametrize("key", NUMBERS, ids=[key.name for key in NUMBERS])
def test_every_number_has_a_range(key):
    low, high = key.limits
    if key.name in FREE:
        assert math.isfinite(low) and math.isfinite(high)
        return
    assert -1e6 <= low <= high <= (1e30 if number_type(key.type) is float else 2**32)
    for number in (-(10**40), 10**40, -(10**7), math.nan, math.inf, -math.inf):
        number = float(number) if number_type(key.type) is float else number
        with pytest.raises(BadValueError, match=r"^must be .*, got "):
            read(key, filled(key, number))


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("size", [1, 0, -1, 7, 10**9])
def test_a_size_that_no_image_has(answer, key, size):
    value = f"({size},)" if isinstance(KEYS[key].default, tuple) else str(size)
    got = f"must be between 8 and 100000, got {value}"
    assert answer("", (key, value)) == f"command line: {key} {got}"
    *groups, name = key.split(".")
    lines = [f"{'  ' * depth}{group}:\n" for depth, group in enumerate(groups)]
    told = answer("".join([*lines, f"{'  ' * len(groups)}{name}: {value}\n"]))
    assert told.startswith(f"my.yaml:{6 + len(groups)}: {key} must be between 8 and 100000, got ")


def test_numbers_below_and_above(answer):
    assert answer("", ("SOLVER.LOG_PERIOD", "0")).endswith("SOLVER.LOG_PERIOD must be 1 or more, got 0")
    assert answer("", ("SOLVER.LOG_PERIOD", str(2**31))).endswith("must be 2147483647 or less, got 2147483648")
    assert answer("", ("TEST.BBOX_AUG.SCALE_RANGES", f"((0, {10**9}),)")).endswith("got ((0, 1000000000),)")


@pytest.mark.parametrize("key", ["TEST.THRESHOLD_IOU", "TEST.THRESHOLD_BETA"])
def test_thresholds_that_only_a_test_would_refuse(answer, key):
    assert answer("", (key, "0")) == f"command line: {key} is 0.0; it must be above 0"


@pytest.mark.parametrize(
    "low, told",
    [
        (-2, "must be between -1 and 100000, got (-2, 640)"),
        (0, "is (0, 640); it must be (low, high) with 0 < low <= high, or (-1, -1) for off"),
        (1, "is (1, 640); sizes must be 8 or more"),
        (7, "is (7, 640); sizes must be 8 or more"),
    ],
)
def test_a_range_of_sizes_that_no_image_has(answer, low, told):
    key = "INPUT.MIN_SIZE_RANGE_TRAIN"
    assert answer("", (key, f"({low}, 640)")) == f"command line: {key} {told}"


def test_the_smallest_sizes_are_allowed(write_config):
    opts = [word for key in SIZES for word in (key, "(8,)" if isinstance(KEYS[key].default, tuple) else "8")]
    assert load_config(write_config(), opts).TEST.BBOX_AUG.SCALES == (8,)
    with pytest.raises(InputError):
        load_config(write_config(), [*opts, "TEST.MAX_DETS", "0"])
