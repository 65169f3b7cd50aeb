"""Values of JSON files: numbers, flags and ids, also where a program wrote them as text."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from engine.spelling import is_text

Id = int | str
"""An image id or a category id."""

# Only ASCII digits: float() also takes "1_0", "inf" and the digits of other scripts, which nobody means.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_WHOLE_NUMBER = re.compile(r"([+-]?\d{1,4000})(\.0*)?", re.ASCII)  # Python converts up to 4300 digits
_WITH_COMMA = re.compile(r"[+-]?\d+(?:[.,]\d+)?", re.ASCII)
_MAX = sys.float_info.max
_LONGEST_NUMBER = 2000
"""Characters; a sum of two floats has at most 640 digits."""
_MAX_EXACT = 2**53  # the whole numbers up to here are exact as floats


def is_finite_number(value: Any) -> bool:
    """Whether a JSON value is a number (not a bool) that a float can hold."""
    kind = type(value)
    return (kind is float or kind is int) and -_MAX <= value <= _MAX


def is_box(value: Any) -> bool:
    """Whether a JSON value is a list of four finite numbers."""
    if type(value) is not list or len(value) != 4:
        return False
    for each in value:  # not all(map(is_finite_number, value)), which takes twice as long
        kind = type(each)
        if not ((kind is float or kind is int) and -_MAX <= each <= _MAX):
            return False
    return True


def number(value: Any) -> int | float | None:
    """The finite number that a JSON value is or, as text, spells; None if it does neither.

    Example:
        >>> number(3), number(" 3.5 "), number("1e400"), number("yes"), number(True)
        (3, 3.5, None, None, None)
    """
    if type(value) is str:
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return None
        value = float(text)
    return value if is_finite_number(value) else None


def exact(value: Any) -> Decimal | None:
    """The number that `number` finds, as it is written; None if it finds none.

    JSON that is read with `parse_float=str` keeps how its numbers are written.

    Example:
        >>> exact("0.10"), exact(3), exact("1e400"), exact("x")
        (Decimal('0.10'), Decimal('3'), None, None)
    """
    if type(value) is str and len(value) > _LONGEST_NUMBER:
        return None
    found = number(value)
    if found is None:
        return None
    try:
        return Decimal(value.strip() if type(value) is str else repr(found))
    except InvalidOperation:  # an exponent of more digits than decimals have; as a float it is 0
        return Decimal(0)


def exact_numbers(values: Any, count: int) -> list[Decimal] | None:
    """`count` numbers in a list, as `exact` reads them; None if one is none, or if there are not `count`."""
    if not isinstance(values, list) or len(values) != count:
        return None
    found = list(map(exact, values))
    return None if None in found else found


def has_commas_within_numbers(words: Sequence[str]) -> bool:
    """Whether all words are numbers and some have a comma inside, such as 10,5: a decimal comma, or two numbers.

    Example:
        >>> has_commas_within_numbers(["10,5", "20"]), has_commas_within_numbers(["10.5", "20"])
        (True, False)
    """
    return all(map(_WITH_COMMA.fullmatch, words)) and any("," in word for word in words)


def numbers(values: Any, count: int | None = None) -> list[int | float] | None:
    """The finite numbers in a list, as `number` reads them; None if one is none, or if there are not `count`."""
    if not isinstance(values, list) or (count is not None and len(values) != count):
        return None
    found = list(map(number, values))
    return None if None in found else found


def whole_number(value: Any) -> int | None:
    """The whole number that a JSON value is or, as text, spells; None if it does neither.

    Example:
        >>> whole_number(2**64), whole_number(3.0), whole_number("07"), whole_number(3.5), whole_number(True)
        (18446744073709551616, 3, 7, None, None)
    """
    if type(value) is int:
        return value
    if type(value) is float:
        return int(value) if abs(value) <= _MAX_EXACT and value == int(value) else None
    found = _WHOLE_NUMBER.fullmatch(value.strip()) if type(value) is str else None
    return int(found[1]) if found else None


def flag(value: Any) -> bool | None:
    """A flag of an annotation: true, 1, "1", "true" or false, 0, "0", "false", null, which is no; None for others."""
    if value is None:
        return False
    if type(value) is bool:
        return value
    if type(value) is str and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    found = number(value)
    return bool(found) if found in (0, 1) else None


def identifier(value: Any) -> Id | None:
    """An id as it is written, 3.0 as 3; None for what cannot be an id.

    Example:
        >>> identifier(7), identifier("7"), identifier(7.0), identifier(7.5), identifier([])
        (7, '7', 7, None, None)
    """
    if type(value) is str:
        return value if is_text(value) else None
    return whole_number(value)


def of_one_type(ids: Iterable[Id]) -> list[int] | list[str]:
    """The ids, all as text if they are a mixture of numbers and text.

    Example:
        >>> of_one_type([1, 2]), of_one_type([1, "b"])
        ([1, 2], ['1', 'b'])
    """
    ids = list(ids)
    return ids if len(set(map(type, ids))) < 2 else list(map(str, ids))


class IdRows:
    """The row that an id refers to, however the number in it is written: 7, 7.0, "7" and " 7 " are the same.

    An id that is written exactly like one of the known ids means that one ("7" beside "07"); otherwise it must read
    like only one of them.

    Args:
        rows: id -> row; several ids may have the same row.
    """

    def __init__(self, rows: Mapping[Id, int]) -> None:
        self._rows = dict(rows)
        self._by_number: dict[int, int | None] = {}
        for known, row in rows.items():
            value = whole_number(known)
            if value is not None:
                is_ambiguous = self._by_number.get(value, row) != row
                self._by_number[value] = None if is_ambiguous else row

    def find(self, value: Any) -> int | None:
        """The row of the id that a JSON value means, or None."""
        kind = type(value)  # True equals 1, and a list cannot be looked up
        row = self._rows.get(value) if kind is int or kind is str else None
        return self._by_number.get(whole_number(value)) if row is None else row
