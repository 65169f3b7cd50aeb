"""The configuration as text: as YAML, what differs from the defaults, and what each key means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NoReturn

import yaml
from yacs.config import CfgNode

from engine.config.declaration import MOST_FLOAT, MOST_INT, Key
from engine.config.keys import GROUPS, KEYS
from engine.config.tree import DEFAULTS, leaves, nested
from engine.errors import InputError
from engine.spelling import nearest_words

Tree = dict[str, Any]

_WIDTH = 110


def plain(tree: CfgNode) -> Tree:
    """The tree in YAML's own types, in the order of the defaults."""
    return yaml.safe_load(tree.dump())


def to_yaml(tree: Tree, allow_unicode: bool = False) -> str:
    """YAML text that `merge_from_file` reads.

    Args:
        allow_unicode: letters beyond ASCII as they are; the text must then be stored in UTF-8.
    """
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=allow_unicode, width=_WIDTH)


def difference(tree: Mapping[str, Any], base: Mapping[str, Any]) -> Tree:
    """What `tree` says and `base` does not; a mapping of the user's names counts as one value.

    Example:
        >>> difference({"A": {"B": 1, "C": 2}, "D": 3}, {"A": {"B": 1, "C": 0}, "D": 3})
        {'A': {'C': 2}}
    """
    old = dict(leaves(base))
    return nested({key: value for key, value in leaves(tree) if key not in old or value != old[key]})


def changes(before: str, tree: CfgNode) -> list[str]:
    """A line "KEY: old -> new" for each key whose value in `tree` is not the one in the YAML text `before`.

    Keys that only one of them has (another version wrote the text) are left out, as is a text that holds no tree.
    """
    try:
        loaded = yaml.safe_load(before)
    except yaml.YAMLError:
        return []
    old = dict(leaves(loaded)) if isinstance(loaded, dict) else {}
    return [
        f"{key}: {old[key]} -> {value}"
        for key, value in leaves(plain(tree))
        if key in old and _compared(key, old[key]) != _compared(key, value)
    ]


def _compared(key: str, value: Any) -> Any:
    """Of parameter groups the order matters too: the last pattern that fits counts."""
    return list(value.items()) if key == "SOLVER.PARAM_GROUPS" and isinstance(value, Mapping) else value


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


def documentation(tree: CfgNode, pattern: str) -> str:
    """The keys that match, each with its value in `tree` (and its default), its meaning and what it may be.

    Raises:
        InputError: no key matches.
    """
    values, standard = dict(leaves(plain(tree))), dict(leaves(yaml.safe_load(to_yaml(DEFAULTS))))
    keys = [key for key in {**standard, **values} if matches(key, pattern)]
    if not keys:
        nothing_matches(pattern)
    paragraphs: list[str] = []
    unexplained = dict(GROUPS)
    for key in keys:
        for group in [each for each in unexplained if key.startswith(f"{each}.")]:
            paragraphs.append(f"{group}:\n{_indented(unexplained.pop(group))}")
        value = values[key]
        default = f"  (default {standard[key]!r})" if key in standard and standard[key] != value else ""
        lines = _meaning(KEYS[key]) if key in KEYS else ()
        paragraphs.append("\n".join([f"{key}: {value!r}{default}", *map(_indented, lines)]))
    return "\n\n".join(paragraphs)


def nothing_matches(pattern: str) -> NoReturn:
    """Raise the `InputError` for a pattern that no key matches."""
    by_word = {word: key for key in KEYS for word in (key, key.rpartition(".")[2])}
    nearest = nearest_words(pattern.strip("*?").upper(), by_word)
    hint = f"; did you mean {by_word[nearest[0]]}?" if nearest else ""
    raise InputError(f"no key matches {pattern}{hint}")


def _meaning(key: Key) -> Iterator[str]:
    yield f"(ours) {key.doc}" if key.ours else key.doc
    for name, field in key.entries.fields.items() if key.entries else ():
        yield f"{name}: {' '.join(_meaning(field))}"
    if key.words:
        own = f"what a module of IMPORTS registers in {key.words.registry}" if key.words.registry else ""
        words = [*key.words.names, *(f"{family}NAME" for family in key.words.families)]
        names = ", ".join(word or '""' for word in words)
        start = "Any of" if key.type is not str else "One of"
        yield f"{start} {', or '.join(part for part in (names, own) if part)}."
    if key.limits:
        low, high = key.limits
        yield f"At least {low:g}." if high in (MOST_INT, MOST_FLOAT) else f"From {low:g} to {high:g}."


def _indented(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
