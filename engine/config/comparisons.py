"""Rules that several groups of keys share.

A rule yields (keys, sentence): the sentence says what is wrong and what to write, the keys are those it speaks of, so
that the error can point at the one that was written last.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from yacs.config import CfgNode

from engine.config.parts import body_name, neck_name

Broken = Iterator[tuple[tuple[str, ...], str]]


def value_of(tree: CfgNode, key: str) -> Any:
    """The value at a dotted key."""
    return attrgetter(key)(tree)


def equal_lengths(tree: CfgNode, key: str, other: str, advice: str = "the lengths must be equal") -> Broken:
    """Two tuples have the same number of entries."""
    length, other_length = len(value_of(tree, key)), len(value_of(tree, other))
    if length != other_length:
        yield (key, other), f"{key} has {length} entries and {other} has {other_length}; {advice}"


def equal_strides(tree: CfgNode, key: str, level_strides: tuple[int, ...] | None) -> Broken:
    """A stage has the strides of the pyramid's levels, unless these are not known (None)."""
    strides = value_of(tree, key)
    if level_strides and strides != level_strides:
        yield (
            (key, "MODEL.BACKBONE.CONV_BODY", "MODEL.BACKBONE.NAME", "MODEL.NECK.NAME"),
            f"{key} is {strides}, but the levels of {body_name(tree)}-{neck_name(tree)} have the strides "
            f"{level_strides}; write these",
        )


def not_above(tree: CfgNode, key: str, limit: str) -> Broken:
    """A number does not exceed another one."""
    value, highest = value_of(tree, key), value_of(tree, limit)
    if value > highest:
        yield (key, limit), f"{key} {value} must not exceed {limit} {highest}"


def increasing(tree: CfgNode, key: str) -> Broken:
    """Each number of a tuple is larger than the one before."""
    values = value_of(tree, key)
    if any(first >= second for first, second in zip(values, values[1:], strict=False)):
        yield (key,), f"{key} must increase, got {values}"
