"""Mappings below which the names are the user's own.

There are two kinds. `DATASETS.CATALOG` and `SOLVER.PARAM_GROUPS` map each name to a few declared fields, and
`DATASETS.CLASS_MAP` to one declared value (`Key.entries`); `MODEL.DENSE.ARGS`, `MODEL.BACKBONE.ARGS` and
`MODEL.NECK.ARGS` hold arguments for a part of the user's own: any names, any plain values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.config.coerce import BadValueError, plain_value, read, shown
from engine.config.declaration import Key
from engine.config.yaml_file import Entry, Group, collection
from engine.errors import InputError
from engine.spelling import did_you_mean


@dataclass(frozen=True)
class Assignment:
    """A checked value on its way into the tree, and where it was written."""

    path: tuple[str, ...]
    value: Any
    where: str


def entries_of(key: Key, entry: Entry) -> Group:
    """An entry for each name of a mapping, which may be in YAML, on the command line or in code (a dict).

    Raises:
        InputError: it is not a mapping.
    """
    value = collection(entry.value)
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
        yield Assignment(path, plain_value(entry.value), entry.where)
    except BadValueError as error:
        raise InputError(f"{entry.where}: {'.'.join(path)} {error}") from None
