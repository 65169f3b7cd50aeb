"""The configuration tree with yacs' methods, and checks of everything that enters it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, NoReturn

import yacs.config

from engine.config.coerce import BadValueError, check_words
from engine.config.declaration import Entries, Key
from engine.config.free import group_of
from engine.config.keys import KEYS, MAPPINGS
from engine.config.merge import Merge
from engine.config.rules import broken_rules
from engine.config.steps import name_key, name_of
from engine.config.tree import DEFAULTS, leaves
from engine.config.yaml_file import read_chain
from engine.errors import InputError
from engine.spelling import did_you_mean

_IN_CODE = "in code"


class CfgNode(yacs.config.CfgNode):
    """A yacs node whose merges are strict and whose `freeze` checks the rules between keys.

    Each mistake is one line of the `InputError`: the place (`file.yaml:18`, `command line`, `in
    code`), what is wrong, and the nearest right thing. A merge with a mistake changes nothing.
    """

    def __init__(
        self, init_dict: Mapping[str, Any] | None = None, key_list: list[str] | None = None, new_allowed: bool = False
    ) -> None:
        super().__init__(init_dict, key_list, new_allowed)
        # Of the root only: where each key was last set, and to what; in the order of setting.
        self.__dict__["_written"] = {}
        self.__dict__["_files"] = []

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self and not self.is_new_allowed() and not self.is_frozen():
            raise InputError(f"{_IN_CODE}: unknown key {name}{did_you_mean(name, self)}")
        if isinstance(value, dict) and not isinstance(value, yacs.config.CfgNode):
            value = type(self)(value)
            value.set_new_allowed(True)  # yacs' argument `new_allowed` would not reach the nodes below
        super().__setattr__(name, value)

    def merge_from_file(self, cfg_filename: str | os.PathLike[str]) -> None:
        """Merges a YAML file, the files named by `_BASE_` first.

        Raises:
            InputError: with a line for each mistake of the files.
        """
        path = os.fspath(cfg_filename)
        with self._merging() as merge:
            for file in read_chain(path):
                merge.mistakes.extend(file.mistakes)
                merge.add_entries(file.entries)
        self.__dict__["_files"].append(path)

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merges KEY VALUE KEY VALUE ... as they stand on a command line.

        Raises:
            InputError: with a line for each mistake.
        """
        with self._merging() as merge:
            merge.add_pairs(cfg_list)

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merges another tree under the same checks."""
        with self._merging() as merge:
            merge.add_entries(group_of(cfg_other, _IN_CODE))

    def freeze(self) -> None:
        """Checks every value, also those set in code, and the rules between them, then makes the tree immutable.

        Words that a module of `IMPORTS` may register are checked here only if there are no such modules; else
        `check_registered` checks them after the import.

        Raises:
            InputError: with a line for each value of a wrong type and each broken rule.
        """
        if "MODEL" in self:  # the root
            self._check()
        super().freeze()

    def _check(self) -> None:
        merge = Merge(self)
        # What a file or the command line set was checked then; lists set in code become tuples here, dicts nodes.
        merge.add_entries(group_of(self, _IN_CODE))
        _raise_if_any(merge.mistakes)
        for each in merge.assignments:
            self._put(each.path, each.value)
        if not self.IMPORTS:
            self.check_registered(lambda registry: ())
        broken = broken_rules(self, is_complete=bool(self.__dict__["_files"]))
        _raise_if_any([f"{self._place(keys)}: {sentence}" for keys, sentence in broken])

    def check_registered(self, names_in: Callable[[str], Iterable[str]]) -> None:
        """Checks each word that names a registered part.

        Args:
            names_in: gives the names that the registry "module.NAME" holds. It is called only for words that are not
                built in, so that no more is imported than is needed.

        Raises:
            InputError: with a line for each word that is neither built in nor registered.
        """
        mistakes = []
        for name, key, value in self._registrable():
            words = (value,) if isinstance(value, str) else value
            registered = names_in(key.words.registry) if set(words) - set(key.words.names) else ()
            try:
                check_words(key, value, registered)
            except BadValueError as error:
                mistakes.append(f"{self._place((name,))}: {name} {error}")
        _raise_if_any(mistakes)

    def dump(self, **kwargs: Any) -> str:
        """YAML text of the tree in its own order, since of `SOLVER.PARAM_GROUPS` the last pattern that fits counts."""
        return super().dump(**{"sort_keys": False, **kwargs})

    @classmethod
    def load_cfg(cls, cfg_file_obj_or_str: Any) -> NoReturn:
        """Refused: yacs would run a Python file here and skip the checks."""
        raise NotImplementedError("use engine.config.load_config(path) or merge_from_file(path)")

    def _registrable(self) -> Iterator[tuple[str, Key, Any]]:
        """(dotted key, declaration, value) of everything that may name a registered part."""
        values = dict(leaves(self))
        for name, key in KEYS.items():
            if key.words and key.words.registry:
                yield name, key, values[name]
            for index, step in enumerate(values[name] if key.steps else ()):
                yield name_of(name, index), name_key(key.steps), step["name"]
            is_mapping = isinstance(key.entries, Entries) and key.entries.fields
            for entry, fields in values[name].items() if is_mapping else ():
                for field, value in fields.items():
                    declared = key.entries.fields[field]
                    if declared.words and declared.words.registry:
                        yield f"{name}.{entry}.{field}", declared, value

    @contextmanager
    def _merging(self) -> Iterator[Merge]:
        """A merge that changes the tree at the end of the block, unless there are mistakes."""
        if self.is_frozen():
            raise AttributeError("the configuration is frozen; defrost() or clone() it first")
        merge = Merge(self)
        yield merge
        _raise_if_any(merge.mistakes)
        for each in merge.assignments:
            self._put(each.path, each.value)
            key = ".".join(each.path)
            self.__dict__["_written"].pop(key, None)  # so that it goes to the end
            self.__dict__["_written"][key] = (each.where, each.value)
        self.__dict__["_written"].update({name: (where, None) for name, where in merge.places.items()})

    def _put(self, path: tuple[str, ...], value: Any) -> None:
        """Sets a value; an empty dict stands for a node, whose entries are put one by one."""
        node = self
        for name in path[:-1]:
            node = node._node_at(name)
        if isinstance(value, dict):
            node._node_at(path[-1])
        else:
            node[path[-1]] = value

    def _node_at(self, name: str) -> CfgNode:
        """The node below this one; a dict set in code becomes one, a plain value gives way to one."""
        present = self.get(name)
        if not isinstance(present, CfgNode):
            self[name] = CfgNode(present if isinstance(present, dict) else None, new_allowed=True)
        return self[name]

    def _place(self, keys: Iterable[str]) -> str:
        """Where the last written of the keys is; else the file that lacks them; else code."""
        written = self.__dict__["_written"]
        values = dict(leaves(self))
        for key in reversed(written):
            where, value = written[key]
            if key in keys:
                return where if key not in values or values[key] == value else _IN_CODE
        defaults = dict(leaves(DEFAULTS))
        is_changed = any(key in values and values[key] != defaults.get(key) for key in keys)
        files = self.__dict__["_files"]
        return files[-1] if files and not is_changed else _IN_CODE


def get_cfg() -> CfgNode:
    """A fresh tree of defaults.

    Example:
        >>> cfg = get_cfg()
        >>> cfg.merge_from_list(["MODEL.ATSS.TOPK", "5"])
        >>> cfg.MODEL.ATSS.TOPK
        5
    """
    tree = CfgNode(DEFAULTS)
    for name in MAPPINGS:
        attrgetter(name)(tree).set_new_allowed(True)
    return tree


def load_config(path: str | os.PathLike[str], opts: Sequence[Any] = ()) -> CfgNode:
    """The frozen configuration of a YAML file, with the command line's KEY VALUE pairs on top.

    Raises:
        InputError: with a line for each mistake, which names the file and line, or the command line.
    """
    tree = get_cfg()
    mistakes = []
    for merge, source in ((tree.merge_from_file, path), (tree.merge_from_list, opts)):
        try:
            merge(source)
        except InputError as error:
            mistakes.append(str(error))
    _raise_if_any(mistakes)
    tree.freeze()
    return tree


def _raise_if_any(mistakes: list[str]) -> None:
    if mistakes:
        raise InputError("\n".join(mistakes))


def split_overrides(words: Sequence[str], opts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths and KEY VALUE pairs from an option that takes any number of paths, and may be followed by the pairs.

    Args:
        words: what was given to the option; pairs begin at the first word after it that begins with a known key and
            that is no file.
        opts: further pairs.

    Example:
        >>> split_overrides(["parts", "TEST.IMS_PER_BATCH", "1"], [])
        (['parts'], ['TEST.IMS_PER_BATCH', '1'])
    """
    keys = set(get_cfg())
    is_key = [word.split(".")[0] in keys and not os.path.exists(word) for word in words]
    end = is_key.index(True, 1) if True in is_key[1:] else len(words)
    return list(words[:end]), [*words[end:], *opts]
