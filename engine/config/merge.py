"""Entries of a file, or pairs of the command line, checked key by key against the tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from engine.config import foreign_keys
from engine.config.coerce import UNCLEAR, BadValueError, Unclear, describe, literal, shown
from engine.config.declaration import Key
from engine.config.free import Assignment, assigned, entries_of
from engine.config.keys import KEYS, MAPPINGS
from engine.config.steps import name_of, read_steps
from engine.config.tree import read_at, type_of
from engine.config.yaml_file import BASE_KEY, Entry, Group
from engine.errors import InputError, printable
from engine.spelling import nearest_key

COMMAND_LINE = "command line"
_MAX_SHOWN = 120  # characters of a key


@dataclass
class Merge:
    """What a source sets, and a line for each of its mistakes. The tree itself does not change."""

    tree: Mapping[str, Any]
    assignments: list[Assignment] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # of the names of steps, see `steps.name_of`

    def add_entries(self, entries: Iterable[Entry]) -> None:
        """Takes the entries of a YAML file."""
        for entry in entries:
            self._take(entry, (), self.tree)

    def add_pairs(self, opts: Sequence[Any]) -> None:
        """Takes KEY VALUE KEY VALUE ... of the command line."""
        complaint = _complaint(opts)
        if complaint:
            self._note(f"{COMMAND_LINE}: {complaint}")
            return
        for key, value in zip(opts[0::2], opts[1::2], strict=True):
            mapping = next((each for each in MAPPINGS.values() if key.startswith(f"{each.name}.")), None)
            if mapping:
                self._take_below(mapping, key.removeprefix(f"{mapping.name}.").split("."), value)
            else:
                *above, name = key.split(".")
                node = _at(self.tree, above)
                self._take(Entry(name, value, COMMAND_LINE), above, node if isinstance(node, Mapping) else {})

    def _take_below(self, mapping: Key, names: list[str], value: Any) -> None:
        """Takes a value of the command line whose key goes on below a mapping of the user's names."""
        if mapping.entries and mapping.entries.value:
            names = [".".join(names)]
        elif mapping.entries is None:
            value = Unclear(value) if isinstance(value, str) and UNCLEAR.fullmatch(value) else literal(value)
        elif len(names) > 1:  # the user's name may have dots, a field has none
            names = [".".join(names[:-1]), names[-1]]
        else:
            fields = " or .".join(mapping.entries.fields)
            incomplete = f"{mapping.name}.{names[0]} is incomplete; write {mapping.name}.NAME.{fields}"
            self._note(f"{COMMAND_LINE}: {incomplete}")
            return
        for name in reversed(names):
            value = Group([Entry(name, value, COMMAND_LINE)])
        self._take_mapping(mapping, Entry(mapping.name, value, COMMAND_LINE))

    def _take(self, entry: Entry, above: Iterable[str], node: Mapping[str, Any]) -> None:
        """Takes an entry of `node`, the part of the tree at the path `above`."""
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
            for each in entry.value:
                self._take(each, path, node)
        elif entry.value is not None:  # `SOLVER:` with all its keys commented out is fine
            examples = ", ".join(list(node)[:3])
            self._refuse(entry, f"{'.'.join(path)} is a group of keys ({examples}, ...), got {shown(entry.value)}")

    def _take_leaf(self, entry: Entry, path: tuple[str, ...], present: Any) -> None:
        key, type_ = ".".join(path), type_of(".".join(path), present)
        if key in KEYS and KEYS[key].steps:
            self._take_steps(KEYS[key], entry, path)
            return
        if isinstance(entry.value, Group):
            self._refuse(entry, f"{key} must be {describe(type_) if type_ else 'one value'}, got a group of keys")
            return
        try:
            self.assignments.append(Assignment(path, read_at(key, entry.value, present), entry.where))
        except BadValueError as error:
            self._refuse(entry, f"{key} {error}")

    def _take_steps(self, key: Key, entry: Entry, path: tuple[str, ...]) -> None:
        steps, places, mistakes = read_steps(key, entry.value, entry.where)
        for mistake in mistakes:
            self._note(mistake)
        if not mistakes:
            self.assignments.append(Assignment(path, steps, entry.where))
            self.places.update({name_of(key.name, index): place for index, place in enumerate(places)})

    def _take_mapping(self, mapping: Key, entry: Entry) -> None:
        with self._noting_mistakes():
            for each in entries_of(mapping, entry):
                with self._noting_mistakes():  # a mistake below one name does not hide those below the next
                    self.assignments.extend(assigned(mapping, each))

    @contextmanager
    def _noting_mistakes(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self._note(str(error))

    def _take_unknown(self, entry: Entry, path: tuple[str, ...], node: Mapping[str, Any]) -> None:
        """A key that is not in the tree: foreign, allowed by the node (yacs), or a mistake."""
        key = ".".join(path)
        if row := foreign_keys.find(key):
            if not row.is_harmless(entry.value):
                self._refuse(entry, f"{key} is not supported: {row.reason}")
        elif getattr(node, "is_new_allowed", bool)() and not isinstance(entry.value, Group):
            self.assignments.append(Assignment(path, read_at(key, entry.value, None), entry.where))
        elif "." in entry.name and _at(self.tree, key.split(".")) is not None:
            nested = ": {".join(key.split("."))
            closing = "}" * key.count(".")
            self._refuse(entry, f"{key} has dots; in YAML groups are nested: {nested}: ...{closing}")
        elif entry.name == BASE_KEY and len(path) > 1:
            self._refuse(entry, f"{BASE_KEY} belongs at the top level of a file, not in {path[-2]}")
        else:
            # Where a group is written a group is meant, so that the other kind is only suggested if nothing is similar.
            kinds = dict(_all_keys(self.tree))
            alike = [name for name, is_group in kinds.items() if is_group == isinstance(entry.value, Group)]
            nearest = nearest_key(key, alike) or nearest_key(key, kinds)
            hint = f"; did you mean {nearest}?" if nearest else self._neighbours(path[:-1])
            self._refuse(entry, f"unknown key {_visible(_cut(key))}{hint}")

    def _neighbours(self, path: Sequence[str]) -> str:
        while not isinstance(_at(self.tree, path), Mapping):
            path = path[:-1]
        return f"; {'.'.join(path) or 'the top level'} has {', '.join(_at(self.tree, path))}"

    def _refuse(self, entry: Entry, message: str) -> None:
        self._note(f"{entry.where}: {message}")

    def _note(self, mistake: str) -> None:
        self.mistakes.append(mistake.replace("\n", "\\n"))  # a key of the command line may hold one


def _complaint(opts: Sequence[Any]) -> str | None:
    """What keeps the words of a command line from being pairs, or None."""
    for key in opts[0::2]:
        if not isinstance(key, str):
            return f"expected a key, got {shown(key)}"
        if key.startswith("-"):
            return f"{_cut(key)} is among the KEY VALUE pairs; options come before them"
        name, equals, value = key.partition("=")
        if equals:
            return f"{_cut(key)}: write {_cut(name)} {_cut(value) or 'VALUE'}, with a space"
    if len(opts) % 2:
        return f"expected KEY VALUE pairs, but {_cut(opts[-1])} has no value"
    return None


def _visible(key: str) -> str:
    """`key`, in quotes and with escapes if it has blanks or marks that nobody sees (a zero-width one, U+200B)."""
    return key if printable(key).isprintable() else ascii(key)


def _cut(key: str) -> str:
    """A key as a message shows it; what is far longer than any key may be a whole file."""
    return key if len(key) <= _MAX_SHOWN else f"{key[: _MAX_SHOWN - 3]}..."


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
