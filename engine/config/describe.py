"""The configuration as text: as YAML, what differs from the defaults, and what each key means."""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NoReturn

import yaml
from yacs.config import CfgNode

from engine.config import defaults, defaults_model
from engine.config.schema import RANGES, WORDS, leaves
from engine.config.spelling import nearest_word
from engine.errors import InputError

Tree = dict[str, Any]

_SOURCES = ((defaults, ""), (defaults_model, "MODEL."))
_WIDTH = 110


def plain(cfg: CfgNode) -> Tree:
    """The tree in YAML's own types, in the order of the defaults."""
    return yaml.safe_load(cfg.dump(sort_keys=False))


def to_yaml(tree: Tree, allow_unicode: bool = False) -> str:
    """YAML text that `merge_from_file` reads.

    Args:
        allow_unicode: letters beyond ASCII as they are; the text must then be stored in UTF-8.
    """
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=allow_unicode, width=_WIDTH)


def difference(tree: Mapping[str, Any], base: Mapping[str, Any]) -> Tree:
    """What `tree` says and `base` does not, group by group.

    Example:
        >>> difference({"A": {"B": 1, "C": 2}, "D": 3}, {"A": {"B": 1, "C": 0}, "D": 3})
        {'A': {'C': 2}}
    """
    found: Tree = {}
    for name, value in tree.items():
        if name not in base:
            found[name] = value
        elif isinstance(value, Mapping) and isinstance(base[name], Mapping):
            if inner := difference(value, base[name]):
                found[name] = inner
        elif value != base[name]:
            found[name] = value
    return found


def select(tree: Mapping[str, Any], pattern: str, prefix: str = "") -> Tree:
    """The part of `tree` whose dotted keys match, see `matches`.

    Example:
        >>> select({"A": {"B": 1, "C": {"D": 2}}, "E": 3}, "A.C")
        {'A': {'C': {'D': 2}}}
    """
    found: Tree = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if matches(key, pattern):
            found[name] = value
        elif isinstance(value, Mapping) and (inner := select(value, pattern, f"{key}.")):
            found[name] = inner
    return found


def matches(key: str, pattern: str) -> bool:
    """Whether a part of `key` fits `pattern`, in which `*` and `?` stand for letters as in a shell; case is ignored.

    Example:
        >>> matches("SOLVER.EMA_DECAY", "solver.ema"), matches("SOLVER.EMA_DECAY", "ema*lr")
        (True, False)
    """
    return fnmatchcase(key.upper(), f"*{pattern.upper()}*")


def comments() -> dict[str, str]:
    """What stands above each key, and above some groups, in the source of the defaults, by dotted key."""
    found: dict[str, str] = {}
    for module, prefix in _SOURCES:
        above: list[str] = []
        for line in inspect.getsource(module).splitlines():
            if line.startswith("# "):
                above.append(line[2:])
                continue
            if above and (assignment := re.match(r"_C\.([\w.]+) = ", line)):
                found[prefix + assignment[1]] = " ".join(above)
            above = []
    return found


def documentation(cfg: CfgNode, pattern: str) -> str:
    """The keys that match, each with its value in `cfg` (and its default), its comment and what it may be.

    Raises:
        InputError: none matches.
    """
    values, standard, texts = dict(leaves(plain(cfg))), dict(leaves(plain(defaults.DEFAULTS))), comments()
    keys = [key for key in {**standard, **values} if matches(key, pattern)]
    if not keys:
        nothing_matches(pattern)
    paragraphs: list[str] = []
    told: set[str] = set()
    for key in keys:
        for group in _groups_above(key):
            if group in texts and group not in told:
                told.add(group)
                paragraphs.append(f"{group}:\n{_indented(texts[group])}")
        value = values[key]
        default = f"  (default {standard[key]!r})" if key in standard and standard[key] != value else ""
        lines = [texts.get(key, ""), *_allowed(key)]
        paragraphs.append("\n".join([f"{key}: {value!r}{default}", *(_indented(line) for line in lines if line)]))
    return "\n\n".join(paragraphs)


def nothing_matches(pattern: str) -> NoReturn:
    """Raise the `InputError` for a pattern that no key matches."""
    keys = list(dict(leaves(defaults.DEFAULTS)))
    by_word = {word: key for key in keys for word in (key, key.rpartition(".")[2])}
    nearest = nearest_word(pattern.strip("*?").upper(), by_word)
    hint = f"; did you mean {by_word[nearest]}?" if nearest else ""
    raise InputError(f"no key matches {pattern}{hint}")


def _groups_above(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _allowed(key: str) -> Iterator[str]:
    if key in WORDS:
        words = WORDS[key]
        own = ", or what a module of IMPORTS registers" if words.is_open else ""
        yield f"One of {', '.join(word or repr('') for word in words.allowed)}{own}."
    if key in RANGES:
        low, high = RANGES[key]
        yield f"At least {low:g}." if math.isinf(high) else f"From {low:g} to {high:g}."


def _indented(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
