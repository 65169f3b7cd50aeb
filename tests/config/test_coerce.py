from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.coerce import BadValueError, coerce, describe

FINITE = st.floats(allow_nan=False, allow_infinity=False)
PAIRS = tuple[tuple[int, int], ...]


@given(FINITE, st.integers(), st.lists(st.integers()), st.lists(st.tuples(st.integers(), st.integers())))
def test_a_printed_value_is_read_back(real, whole, several, pairs):
    assert coerce(str(real), float) == real
    assert coerce(str(whole), int) == whole
    for text in (str(several), str(tuple(several))):
        assert coerce(text, tuple[int, ...]) == tuple(several)
    assert coerce(str(pairs), PAIRS) == tuple(pairs)


@given(st.text())
def test_a_string_stays_itself_unless_quoted(text):
    stripped = text.strip()
    if not (stripped[:1] in ("'", '"') and stripped[:1] == stripped[-1:]):
        assert coerce(text, str) == text
    assert coerce(repr(text), str) == text


@pytest.mark.parametrize(
    "value, type_",
    [
        (True, int),
        (True, float),
        (1, bool),
        ("1", bool),
        (1.0, int),
        ("", int),
        ([True], tuple[int, ...]),
        ([[1, 2, 3]], PAIRS),
        ("__import__('os').getcwd()", tuple[str, ...]),
        (float("inf"), float),
        (10**400, float),
        ({"a": 1}, str),
        (None, str),
        ("(" * 10000, int),
    ],
)
def test_other_types_are_refused(value, type_):
    with pytest.raises(BadValueError, match="must be"):
        coerce(value, type_)


def test_types_in_words():
    types = [int, float, str, bool, tuple[str, ...], PAIRS]
    assert [describe(type_) for type_ in types] == [
        "an int",
        "a float",
        "a str",
        "a bool",
        "a tuple of str",
        "a tuple of pairs of int",
    ]
