from __future__ import annotations

import math
from typing import Any

import pytest

from engine.data.formats.values import (
    IdRows,
    flag,
    identifier,
    is_box,
    is_finite_number,
    number,
    numbers,
    of_one_type,
    whole_number,
)

NO_NUMBERS = [None, True, "", " ", "yes", "nan", "inf", "-", ".", "1e", "1e400", "1_0", "0x10", "1,5", "１", [], {}]
NO_NUMBERS += [math.nan, math.inf, 10**400, "9" * 400, "1 2"]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: str(value)[:9])
def test_what_is_no_number(value: Any) -> None:
    assert number(value) is None and numbers([value]) is None and not is_finite_number(value)
    assert not is_box([1, 2, 3, value])


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), (-2.5, -2.5), ("12", 12), ("3.5", 3.5), (" 7 ", 7), ("+1.", 1), ("-.5e1", -5), ("1E2", 100), ("007", 7)],
)
def test_numbers_and_text_that_spells_one(value: Any, expected: float) -> None:
    assert number(value) == expected and numbers([value, 1], 2) == [expected, 1]


def test_lists_of_numbers() -> None:
    assert numbers([1, "2"]) == [1, 2] and numbers([1], 2) is None and numbers("12") is None and numbers({}) is None
    assert is_box([0, 1.5, 2, 3]) and not is_box([1, 2, 3]) and not is_box("1234")


@pytest.mark.parametrize("value", [None, True, 1.5, "1.5", "", "1e2", "x", [], math.nan, math.inf, 2.0**60, "9" * 4001])
def test_what_is_no_whole_number(value: Any) -> None:
    assert whole_number(value) is None


def test_flags() -> None:
    assert [flag(value) for value in (None, False, 0, 0.0, "0", "0.0", "False")] == [False] * 7
    assert [flag(value) for value in (True, 1, 1.0, "1", " 1 ", "true")] == [True] * 6
    assert [flag(value) for value in (2, -1, 0.5, "", "yes", [], {}, math.nan)] == [None] * 8


def test_ids() -> None:
    assert identifier("\ud83d") is None and identifier(True) is None and identifier("") == ""
    assert of_one_type([]) == [] and of_one_type(["a", 2**70]) == ["a", str(2**70)]


def test_an_id_means_the_row_of_its_number() -> None:
    rows = IdRows({1: 0, 3: 1, 2**64: 2})
    assert [rows.find(value) for value in (1, "1", 1.0, " 1 ", "01", "3.0", str(2**64))] == [0, 0, 0, 0, 0, 1, 2]
    assert [rows.find(value) for value in (True, None, "x", 1.5, [1], {}, math.nan, 4)] == [None] * 8
    texts = IdRows({"7": 0, "07": 1, "8 ": 2, "hole": 3})
    assert [texts.find(value) for value in ("7", "07", 8, "8", "hole")] == [0, 1, 2, 2, 3]
    assert texts.find(7) is None and texts.find("hole ") is None  # "7" or "07"?
    assert IdRows({"7": 0, "07": 0}).find(7) == 0  # both mean the same
