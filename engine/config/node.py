"""The configuration tree with yacs' methods, and checks of everything that enters it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import yacs.config

from engine.config.coerce import BadValueError, check_word, coerce
from engine.config.defaults import DEFAULTS
from engine.config.merge import Assignment, Merge
from engine.config.rules import broken_rules
from engine.config.schema import FREE_KEYS, leaves, type_of
from engine.config.spelling import nearest_word
from engine.config.yaml_file import Entry, Group, read_chain
from engine.errors import InputError

_IN_CODE = "in code"


class CfgNode(yacs.config.CfgNode):
    """A yacs node whose merges are strict and whose `freeze` checks the rules between keys.

    Each mistake is one line of the `InputError`: the place (`file.yaml:18`, `command line`, `in
    code`), what is wrong, and the nearest right thing. A merge with a mistake changes nothing.
    """

    def __init__(
        self,
        init_dict: Mapping[str, Any] | None = None,
        key_list: list[str] | None = None,
        new_allowed: bool = False,
    ) -> None:
        super().__init__(init_dict, key_list, new_allowed)
        # Of the root only: where each key was last set, and to what; in the order of setting.
        self.__dict__["_written"] = {}
        self.__dict__["_files"] = []

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self and not self.is_new_allowed() and not self.is_frozen():
            nearest = nearest_word(name, list(self)) if self else None
            hint = f"; did you mean {nearest}?" if nearest else ""
            raise InputError(f"{_IN_CODE}: unknown key {name}{hint}")
        if isinstance(value, dict) and not isinstance(value, yacs.config.CfgNode):
            value = type(self)(value, new_allowed=True)
        super().__setattr__(name, value)

    def merge_from_file(self, cfg_filename: str | os.PathLike[str]) -> None:
        """Merges a YAML file, the files named by `_BASE_` first.

        Raises:
            InputError: with a line for each mistake of the files.
        """
        self._refuse_if_frozen()
        path = os.fspath(cfg_filename)
        merge = Merge(self)
        for file in read_chain(path):
            merge.mistakes.extend(file.mistakes)
            merge.add_entries(file.entries)
        self._apply(merge)
        self.__dict__["_files"].append(path)

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merges KEY VALUE KEY VALUE ... as they stand on a command line.

        Raises:
            InputError: with a line for each mistake.
        """
        self._refuse_if_frozen()
        merge = Merge(self)
        merge.add_pairs(cfg_list)
        self._apply(merge)

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merges another tree, under the same checks."""
        self._refuse_if_frozen()
        merge = Merge(self)
        merge.add_entries(_entries_of(cfg_other))
        self._apply(merge)

    def freeze(self) -> None:
        """Checks every value and the rules between them, then makes the tree immutable.

        Raises:
            InputError: with a line for each value of a wrong type and each broken rule.
        """
        if "MODEL" in self:  # the root
            self.check()
        super().freeze()

    def check(self) -> None:
        """Checks every value, set in code ones too, and the rules between them; lists become
        tuples.

        Raises:
            InputError: with a line for each value of a wrong type and each broken rule.
        """
        mistakes = []
        for key, value in list(leaves(self)):
            if key in FREE_KEYS:
                continue
            try:
                self._put(tuple(key.split(".")), self._checked(key, value))
            except BadValueError as error:
                mistakes.append(f"{self._place((key,))}: {key} {error}")
        mistakes.extend(self._normalise_free_mappings())
        _raise_if_any(mistakes)
        for keys, sentence in broken_rules(self, is_complete=bool(self.__dict__["_files"])):
            mistakes.append(f"{self._place(keys)}: {sentence}")
        _raise_if_any(mistakes)

    def dump(self, **kwargs: Any) -> str:
        """YAML text of the tree, in its own order: of `SOLVER.PARAM_GROUPS` the last pattern that fits counts."""
        return super().dump(**{"sort_keys": False, **kwargs})

    @classmethod
    def load_cfg(cls, cfg_file_obj_or_str: Any) -> NoReturn:
        """Refused: yacs would run a Python file here and skip the checks."""
        raise NotImplementedError("use engine.config.load_config(path) or merge_from_file(path)")

    def _checked(self, key: str, value: Any) -> Any:
        type_ = type_of(key, value)
        if type_ is None:
            return value
        value = coerce(key, value, type_)
        if not self.IMPORTS:
            check_word(key, value)
        return value

    def _normalise_free_mappings(self) -> list[str]:
        """Data sets and parameter groups declared in code become checked nodes too."""
        merge = Merge(self)
        for group, name in (key.split(".") for key in FREE_KEYS):
            merge.add_entries(_entries_of({group: {name: dict(self[group][name])}}))
        if not merge.mistakes:
            for assignment in merge.assignments:
                self._put(assignment.path, assignment.value)
        return merge.mistakes

    def _apply(self, merge: Merge) -> None:
        _raise_if_any(merge.mistakes)
        for each in merge.assignments:
            self._put(each.path, each.value)
            self._remember(each)

    def _put(self, path: tuple[str, ...], value: Any) -> None:
        node = self
        for name in path[:-1]:
            if not isinstance(node.get(name), CfgNode):
                node[name] = CfgNode(node.get(name), new_allowed=True)
            node = node[name]
        if isinstance(value, dict):
            node.setdefault(path[-1], CfgNode(value, new_allowed=True))
        else:
            node[path[-1]] = value

    def _remember(self, assignment: Assignment) -> None:
        written, key = self.__dict__["_written"], ".".join(assignment.path)
        written.pop(key, None)
        written[key] = (assignment.where, assignment.value)

    def _place(self, keys: Iterable[str]) -> str:
        """Where the last written of the keys stands; else the file that lacks them; else code."""
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

    def _refuse_if_frozen(self) -> None:
        if self.is_frozen():
            raise AttributeError("the configuration is frozen; defrost() or clone() it first")


def get_cfg() -> CfgNode:
    """A fresh tree of defaults.

    Example:
        >>> cfg = get_cfg()
        >>> cfg.merge_from_list(["MODEL.ATSS.TOPK", "5"])
        >>> cfg.MODEL.ATSS.TOPK
        5
    """
    cfg = CfgNode(DEFAULTS)
    for group, name in (key.split(".") for key in FREE_KEYS):
        cfg[group][name].set_new_allowed(True)
    cfg.MODEL.BACKBONE.ARGS.set_new_allowed(True)
    cfg.MODEL.NECK.ARGS.set_new_allowed(True)
    return cfg


def load_config(path: str | os.PathLike[str], opts: Sequence[Any] = ()) -> CfgNode:
    """The frozen configuration of a YAML file, with the command line's KEY VALUE pairs on top.

    Raises:
        InputError: with a line for each mistake, which names the file and line, or the command
        line.
    """
    cfg = get_cfg()
    mistakes = []
    for merge, source in ((cfg.merge_from_file, path), (cfg.merge_from_list, opts)):
        try:
            merge(source)
        except InputError as error:
            mistakes.append(str(error))
    _raise_if_any(mistakes)
    cfg.freeze()
    return cfg


def _entries_of(tree: Mapping[str, Any]) -> Group:
    return Group(
        Entry(name, _entries_of(value) if isinstance(value, Mapping) else value, _IN_CODE)
        for name, value in tree.items()
    )


def _raise_if_any(mistakes: list[str]) -> None:
    if mistakes:
        raise InputError("\n".join(mistakes))
