"""The tree that the declared keys make: its defaults, its leaves and their types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.config.coerce import Unclear, coerce, read
from engine.config.declaration import type_of_value
from engine.config.keys import KEYS, MAPPINGS


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a tree; a mapping of the user's names counts as one value.

    Example:
        >>> list(leaves({"A": {"B": 1}, "C": 2}))
        [('A.B', 1), ('C', 2)]
    """
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key not in MAPPINGS:
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of dotted keys, the inverse of `leaves`.

    Example:
        >>> nested({"A.B": 1, "C": 2})
        {'A': {'B': 1}, 'C': 2}
    """
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *groups, name = key.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    return tree


def type_of(key: str, value: Any) -> Any:
    """The declared type of a key; of one that a user's code added, the type of its present value.

    None when nothing tells it: such a key takes any value.
    """
    if key not in KEYS:
        return type_of_value(value)
    return str if KEYS[key].type is Path else KEYS[key].type


def read_at(key: str, value: Any, present: Any) -> Any:
    """`value` in the type of a key whose value is `present`, checked like `coerce.read`.

    Raises:
        BadValueError: the value does not fit.
    """
    if key in KEYS:
        return read(KEYS[key], value)
    if type_ := type_of(key, present):
        return coerce(value, type_)
    return str(value) if isinstance(value, Unclear) else value


DEFAULTS: dict[str, Any] = nested({name: key.default for name, key in KEYS.items()})
"""The tree of defaults. It is the reference's, whose detector (R-50-C4, two stages) cannot be built."""
