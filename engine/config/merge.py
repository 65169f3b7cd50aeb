"""Entries of a file, or pairs of the command line, checked key by key against the tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.config import foreign_keys
from engine.config.coerce import BadValueError, coerce, describe, literal, read, shown
from engine.config.declaration import Key
from engine.config.free import BadEntryError, assigned, entries_of
from engine.config.keys import KEYS, MAPPINGS
from engine.config.tree import type_of
from engine.config.yaml_file import BASE_KEY, Entry, Group
from engine.spelling import nearest_key

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Assignment:
    """A checked value on its way into the tree, and where it was written."""

    path: tuple[str, ...]
    value: Any
    where: str


@dataclass
class Merge:
    """What a source sets, and a line for each of its mistakes. The tree itself does not change."""

    tree: Mapping[str, Any]
    assignments: list[Assignment] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def add_entries(self, entries: Iterable[Entry]) -> None:
        """Takes the entries of a YAML file."""
        self._walk(entries, (), self.tree)

    def add_pairs(self, opts: Sequence[Any]) -> None:
        """Takes KEY VALUE KEY VALUE ... of the command line."""
        complaint = _complaint(opts)
        if complaint:
            self.mistakes.append(f"{COMMAND_LINE}: {complaint}")
            return
        for key, value in zip(opts[0::2], opts[1::2], strict=True):
            self._add_pair(tuple(key.split(".")), value)

    def _add_pair(self, path: tuple[str, ...], value: Any) -> None:
        entry = Entry(path[-1], value, COMMAND_LINE)
        above, node = path[:-1], _at(self.tree, path[:-1])
        mapping = next((each for each in MAPPINGS.values() if above[: len(each.path)] == each.path), None)
        if mapping:
            self._add_below(mapping, path[len(mapping.path) :], entry)
        elif isinstance(node, Mapping):
            self._take(entry, above, node)
        else:
            self._refuse_unknown(".".join(path), entry)

    def _add_below(self, mapping: Key, names: tuple[str, ...], entry: Entry) -> None:
        """Takes a value whose key goes on below a mapping of the user's names."""
        if mapping.entries is None:
            entry = Entry(names[-1], literal(entry.value), COMMAND_LINE)
            for name in reversed(names[:-1]):
                entry = Entry(name, Group([entry]), COMMAND_LINE)
            self._take_named(mapping, entry)
        elif len(names) > 1:  # the user's name may have dots, a field has none
            self._take_named(mapping, Entry(".".join(names[:-1]), Group([entry]), COMMAND_LINE))
        else:
            fields = " or .".join(mapping.entries.field_names)
            self._refuse(entry, f"{mapping.name}.{names[0]} is incomplete; write {mapping.name}.NAME.{fields}")

    def _walk(self, entries: Iterable[Entry], above: tuple[str, ...], node: Mapping[str, Any]) -> None:
        for entry in entries:
            self._take(entry, above, node)

    def _take(self, entry: Entry, above: tuple[str, ...], node: Mapping[str, Any]) -> None:
        path = (*above, entry.name)
        mapping = MAPPINGS.get(".".join(path))
        if mapping:
            self._take_mapping(mapping, entry)
        elif entry.name not in node:
            self._take_unknown(entry, path, node)
        elif isinstance(node[entry.name], Mapping):
            self._take_group(entry, path, node[entry.name])
        else:
            self._take_leaf(entry, path, node[entry.name])

    def _take_group(self, entry: Entry, path: tuple[str, ...], node: Mapping[str, Any]) -> None:
        if isinstance(entry.value, Group):
            self._walk(entry.value, path, node)
        elif entry.value is not None:  # `SOLVER:` with all its keys commented out is fine
            examples = ", ".join(list(node)[:3])
            self._refuse(
                entry,
                f"{'.'.join(path)} is a group of keys ({examples}, ...), got {shown(entry.value)}",
            )

    def _take_leaf(self, entry: Entry, path: tuple[str, ...], present: Any) -> None:
        key, value = ".".join(path), entry.value
        type_ = type_of(key, present)
        if isinstance(value, Group):
            wanted = describe(type_) if type_ else "one value"
            self._refuse(entry, f"{key} must be {wanted}, got a group of keys")
            return
        try:
            if key in KEYS:
                value = read(KEYS[key], value)
            elif type_:
                value = coerce(value, type_)
        except BadValueError as error:
            self._refuse(entry, f"{key} {error}")
            return
        self.assignments.append(Assignment(path, value, entry.where))

    def _take_mapping(self, mapping: Key, entry: Entry) -> None:
        try:
            for each in entries_of(mapping, entry):
                self._take_named(mapping, each)
        except BadEntryError as error:
            self.mistakes.append(str(error))

    def _take_named(self, mapping: Key, entry: Entry) -> None:
        try:
            for path, value, where in assigned(mapping, entry):
                self.assignments.append(Assignment((*mapping.path, *path), value, where))
        except BadEntryError as error:
            self.mistakes.append(str(error))

    def _take_unknown(self, entry: Entry, path: tuple[str, ...], node: Mapping[str, Any]) -> None:
        """A key that is not in the tree: foreign, allowed by the node (yacs), or a mistake."""
        key = ".".join(path)
        row = foreign_keys.find(key)
        if row is not None:
            if not row.harmless(entry.value):
                self._refuse(entry, f"{key} is not supported: {row.reason}")
        elif getattr(node, "is_new_allowed", bool)() and not isinstance(entry.value, Group):
            self.assignments.append(Assignment(path, entry.value, entry.where))
        elif "." in entry.name and _at(self.tree, key.split(".")) is not None:
            nested = ": {".join(key.split("."))
            closing = "}" * key.count(".")
            self._refuse(entry, f"{key} has dots; in YAML groups are nested: {nested}: ...{closing}")
        elif entry.name == BASE_KEY:
            self._refuse(entry, f"{BASE_KEY} belongs at the top level of a file, not in {path[-2]}")
        else:
            self._refuse_unknown(key, entry)

    def _refuse_unknown(self, key: str, entry: Entry) -> None:
        row = foreign_keys.find(key)
        if row is not None and row.harmless(entry.value):
            return
        groups, names = [], []
        for each, is_group in _all_keys(self.tree):
            (groups if is_group else names).append(each)
        wanted, others = (groups, names) if isinstance(entry.value, Group) else (names, groups)
        nearest = nearest_key(key, wanted) or nearest_key(key, others)
        hint = f"; did you mean {nearest}?" if nearest else self._neighbours(key)
        self._refuse(entry, f"unknown key {key}{hint}")

    def _neighbours(self, key: str) -> str:
        path = key.split(".")[:-1]
        while not isinstance(_at(self.tree, path), Mapping):
            path = path[:-1]
        return f"; {'.'.join(path) or 'the top level'} has {', '.join(_at(self.tree, path))}"

    def _refuse(self, entry: Entry, message: str) -> None:
        self.mistakes.append(f"{entry.where}: {message}")


def _complaint(opts: Sequence[Any]) -> str | None:
    """What keeps the words of a command line from being pairs, or None."""
    for key in opts[0::2]:
        if not isinstance(key, str):
            return f"expected a key, got {key!r}"
        if key.startswith("-"):
            return f"{key} is among the KEY VALUE pairs; options come before them"
        name, equals, value = key.partition("=")
        if equals:
            return f"{key}: write {name} {value or 'VALUE'}, with a space"
    if len(opts) % 2:
        return f"expected KEY VALUE pairs, but {opts[-1]} has no value"
    return None


def _at(tree: Mapping[str, Any], path: Iterable[str]) -> Any:
    node: Any = tree
    for name in path:
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def _all_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """(dotted key, whether it is a group), without the user's own names in mappings."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        yield key, isinstance(value, Mapping)
        if isinstance(value, Mapping) and key not in MAPPINGS:
            yield from _all_keys(value, f"{key}.")
