"""Rules that several groups of keys share.

A rule yields (keys, sentence): the sentence says what is wrong and what to write, the keys are those it speaks of, so
that the error can point at the one that was written last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Broken = Iterator[tuple[tuple[str, ...], str]]


def value_of(tree: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key.

    Example:
        >>> value_of({"A": {"B": 1}}, "A.B")
        1
    """
    value: Any = tree
    for name in key.split("."):
        value = value[name]
    return value


def equal_lengths(tree: Mapping[str, Any], key: str, other: str) -> Broken:
    """Two tuples have the same number of entries."""
    length, other_length = len(value_of(tree, key)), len(value_of(tree, other))
    if length != other_length:
        yield (key, other), f"{key} has {length} entries and {other} has {other_length}; the lengths must be equal"


def not_above(tree: Mapping[str, Any], key: str, limit: str) -> Broken:
    """A number does not exceed another one."""
    value, highest = value_of(tree, key), value_of(tree, limit)
    if value > highest:
        yield (key, limit), f"{key} {value} must not exceed {limit} {highest}"


def increasing(tree: Mapping[str, Any], key: str) -> Broken:
    """Each number of a tuple is larger than the one before."""
    values = value_of(tree, key)
    if any(first >= second for first, second in zip(values, values[1:], strict=False)):
        yield (key,), f"{key} must increase, got {values}"
