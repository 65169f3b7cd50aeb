"""Mappings below which the names are the user's own.

There are two kinds. `DATASETS.CATALOG` and `SOLVER.PARAM_GROUPS` map each name to a few declared fields, and
`DATASETS.CLASS_MAP` to one declared value (`Key.entries`); `MODEL.DENSE.ARGS`, `MODEL.BACKBONE.ARGS` and
`MODEL.NECK.ARGS` hold arguments for a part of the user's own: any names, any plain values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.config.coerce import BadValueError, Unclear, literal, read, shown
from engine.config.declaration import Key
from engine.config.yaml_file import Entry, Group
from engine.errors import InputError
from engine.spelling import did_you_mean


@dataclass(frozen=True)
class Assignment:
    """A checked value on its way into the tree, and where it was written."""

    path: tuple[str, ...]
    value: Any
    where: str


def entries_of(key: Key, entry: Entry) -> Group:
    """An entry for each name of a mapping, which may be in YAML, on the command line (a literal) or in code (a dict).

    Raises:
        InputError: it is not a mapping.
    """
    value = literal(entry.value)
    if value is None:
        return Group()
    if isinstance(value, Mapping):
        value = group_of(value, entry.where)
    if not isinstance(value, Group):
        wanted = f"map {key.entries.names} to {key.entries.form}" if key.entries else "map names of arguments to values"
        raise InputError(f"{entry.where}: {key.name} must {wanted}, got {shown(value)}")
    return value


def assigned(key: Key, entry: Entry) -> Iterator[Assignment]:
    """What is written at one name of the mapping; first the name itself, if it holds more than a value.

    Raises:
        InputError: an unknown or missing field, or a bad value.
    """
    if key.entries is None:
        return _argument(tuple(key.name.split(".")), entry)
    return _fields(key, entry) if key.entries.value is None else _declared_value(key, key.entries.value, entry)


def group_of(mapping: Mapping[str, Any], where: str) -> Group:
    """The entries of a dict, all written at the same place."""
    return Group(
        Entry(name, group_of(value, where) if isinstance(value, Mapping) else value, where)
        for name, value in mapping.items()
    )


def _fields(key: Key, entry: Entry) -> Iterator[Assignment]:
    path = f"{key.name}.{entry.name}"
    if not isinstance(entry.value, Group):
        raise InputError(f"{entry.where}: {path} must be {key.entries.form}, got {shown(entry.value)}")
    above = (*key.name.split("."), entry.name)
    yield Assignment(above, {}, entry.where)
    for each in entry.value:
        if each.name not in key.entries.fields:
            names = list(key.entries.fields)
            hint = did_you_mean(each.name, names) or f"; {path} has {', '.join(names)}"
            raise InputError(f"{each.where}: unknown key {path}.{each.name}{hint}")
        try:
            yield Assignment((*above, each.name), read(key.entries.fields[each.name], each.value), each.where)
        except BadValueError as error:
            raise InputError(f"{each.where}: {path}.{each.name} {error}") from None


def _declared_value(key: Key, declared: Key, entry: Entry) -> Iterator[Assignment]:
    if not isinstance(entry.name, str):
        raise InputError(f"{entry.where}: {entry.name!r} in {key.name} is not a name; quote it")
    if isinstance(entry.value, Group):
        raise InputError(f"{entry.where}: {key.name}.{entry.name} must be {key.entries.form}, got a group of keys")
    # YAML's null, like "", is no name.
    value = "" if entry.value is None and declared.type is str else entry.value
    try:
        yield Assignment((*key.name.split("."), entry.name), read(declared, value), entry.where)
    except BadValueError as error:
        raise InputError(f"{entry.where}: {key.name}.{entry.name} {error}") from None


def _argument(above: tuple[str, ...], entry: Entry) -> Iterator[Assignment]:
    if not isinstance(entry.name, str):
        raise InputError(f"{entry.where}: {entry.name!r} in {'.'.join(above)} is not a name; quote it")
    path = (*above, entry.name)
    if isinstance(entry.value, Group):
        yield Assignment(path, {}, entry.where)
        for each in entry.value:
            yield from _argument(path, each)
        return
    try:
        yield Assignment(path, _plain(entry.value), entry.where)
    except BadValueError as error:
        raise InputError(f"{entry.where}: {'.'.join(path)} {error}") from None


def _plain(value: Any) -> Any:
    """A value for an argument, such that it is the same after a dump: lists become tuples.

    Strings are read as elsewhere in the file, where no type tells what is wanted: "(1, 2)" is a tuple and 1e-4, which
    YAML leaves a string, a number.

    Raises:
        BadValueError: it is an object that YAML cannot hold, or nothing tells whether it is text (010, no).
    """
    if isinstance(value, Unclear):
        number = literal(str(value))
        if isinstance(number, str):
            raise BadValueError(f'may be text or not, got {shown(value)}; write a plain number, True, False or "text"')
        value = number
    if isinstance(value, str) and (re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value) or value[:1] in ("(", "[")):
        value = literal(value)
    if isinstance(value, list | tuple):
        return tuple(_plain(each) for each in value)
    if isinstance(value, Mapping):  # in a list
        return {str(name) if isinstance(name, Unclear) else name: _plain(each) for name, each in value.items()}
    if type(value) is int and abs(value) >= 2**63:
        raise BadValueError(f"must be a number of 64 bits, got {shown(value)}")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise BadValueError(f"must be a plain value (a number, string, bool, list or mapping), got {shown(value)}")
