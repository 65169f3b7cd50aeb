"""Free mappings of the tree: keys below which the names are the user's own, each with a few known fields."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.config.coerce import BadValueError
from engine.config.spelling import nearest_word
from engine.config.yaml_file import Entry, Group


class BadEntryError(ValueError):
    """Not what the mapping holds; the message is complete."""


@dataclass(frozen=True)
class FreeMapping:
    """What may stand below a key such as `DATASETS.CATALOG`.

    Attributes:
        key: GROUP.NAME of the mapping.
        names: what the user's names are, in the plural.
        form: the fields of one of them, as a message shows them.
        readers: field -> function that gives the value to keep or raises `BadValueError`.
    """

    key: str
    names: str
    form: str
    readers: Mapping[str, Callable[[Any], Any]]

    @property
    def path(self) -> tuple[str, ...]:
        return tuple(self.key.split("."))

    def entries(self, entry: Entry) -> Group:
        """An entry for each name of a mapping that stands in YAML, on the command line as a literal, or in code as a
        dict.

        Raises:
            BadEntryError: it is no mapping.
        """
        value = entry.value
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                value = entry.value
        if value is None:
            return Group()
        if isinstance(value, Mapping):
            value = _group_of(value, entry.where)
        if not isinstance(value, Group):
            raise BadEntryError(f"{entry.where}: {self.key} must map {self.names} to {self.form}, got {value!r}")
        return value

    def fields(self, entry: Entry) -> Iterator[tuple[tuple[str, ...], Any, str]]:
        """The (path below the mapping, value, place) of what stands at one name; first the name itself.

        Raises:
            BadEntryError: it is no group, holds an unknown field, or a field has a bad value.
        """
        key = f"{self.key}.{entry.name}"
        if not isinstance(entry.value, Group):
            raise BadEntryError(f"{entry.where}: {key} must be {self.form}, got {entry.value!r}")
        yield (entry.name,), {}, entry.where
        for each in entry.value:
            if each.name not in self.readers:
                nearest = nearest_word(each.name, list(self.readers))
                hint = f"did you mean {nearest}?" if nearest else f"{key} has {', '.join(self.readers)}"
                raise BadEntryError(f"{each.where}: unknown key {key}.{each.name}; {hint}")
            try:
                yield (entry.name, each.name), self.readers[each.name](each.value), each.where
            except BadValueError as error:
                raise BadEntryError(f"{each.where}: {key}.{each.name} {error}") from None


def _group_of(mapping: Mapping[str, Any], where: str) -> Group:
    return Group(
        Entry(name, _group_of(value, where) if isinstance(value, Mapping) else value, where)
        for name, value in mapping.items()
    )
