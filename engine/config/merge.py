"""Entries of a file, or pairs of the command line, checked key by key against the tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.config import foreign_keys
from engine.config.catalog import CATALOG
from engine.config.coerce import BadValueError, coerce, describe, shown
from engine.config.free import BadEntryError, FreeMapping
from engine.config.param_groups import PARAM_GROUPS
from engine.config.schema import FREE_KEYS, type_of
from engine.config.spelling import nearest_key
from engine.config.yaml_file import BASE_KEY, Entry, Group

COMMAND_LINE = "command line"
_FREE = {mapping.key: mapping for mapping in (CATALOG, PARAM_GROUPS)}


@dataclass(frozen=True)
class Assignment:
    """A checked value on its way into the tree, and the place it was written at."""

    path: tuple[str, ...]
    value: Any
    where: str


@dataclass
class Merge:
    """What a source sets, and a line for each of its mistakes. The tree itself is not changed."""

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
        mapping = _FREE.get(".".join(above[:2]))
        if mapping and len(path) > 3:  # names may have dots, fields have none
            self._take_named(mapping, Entry(".".join(path[2:-1]), Group([entry]), COMMAND_LINE))
        elif mapping:
            fields = " or .".join(mapping.readers)
            self._refuse(entry, f"{'.'.join(path)} is incomplete; it is {mapping.key}.NAME.{fields}")
        elif isinstance(node, Mapping):
            self._take(entry, above, node)
        else:
            self._refuse_unknown(".".join(path), entry)

    def _walk(self, entries: Iterable[Entry], above: tuple[str, ...], node: Mapping[str, Any]) -> None:
        for entry in entries:
            self._take(entry, above, node)

    def _take(self, entry: Entry, above: tuple[str, ...], node: Mapping[str, Any]) -> None:
        path = (*above, entry.name)
        mapping = _FREE.get(".".join(path))
        if mapping:
            self._take_free(mapping, entry)
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
            value = coerce(key, value, type_) if type_ else value
        except BadValueError as error:
            self._refuse(entry, f"{key} {error}")
            return
        self.assignments.append(Assignment(path, value, entry.where))

    def _take_free(self, mapping: FreeMapping, entry: Entry) -> None:
        try:
            for each in mapping.entries(entry):
                self._take_named(mapping, each)
        except BadEntryError as error:
            self.mistakes.append(str(error))

    def _take_named(self, mapping: FreeMapping, entry: Entry) -> None:
        try:
            for path, value, where in mapping.fields(entry):
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
            self._refuse(entry, f"{BASE_KEY} stands at the top level of a file, not in {path[-2]}")
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
    """Why the words of a command line are no pairs, or None."""
    for key in opts[0::2]:
        if not isinstance(key, str):
            return f"expected a key, got {key!r}"
        if key.startswith("-"):
            return f"{key} stands among the KEY VALUE pairs; options come before them"
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
    """(dotted key, it is a group), what stands in free mappings left out."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        yield key, isinstance(value, Mapping)
        if isinstance(value, Mapping) and key not in FREE_KEYS:
            yield from _all_keys(value, f"{key}.")
