"""Writing a configuration with a reason beside each value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from engine.config.yaml_file import BASE_KEY
from engine.errors import InputError, printable
from engine.spelling import is_text

_NOT_TEXT = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
_WIDEST = 44
"""Characters before which comments of a group are aligned."""


class Setting(NamedTuple):
    """A value of a dotted key, and the reason for it; "" for none."""

    key: str
    value: Any
    reason: str = ""


def commented_yaml(head: Sequence[str], base: Setting, settings: Sequence[Setting]) -> str:
    """A YAML file: comment lines, `_BASE_`, then the settings, those of a group together, in the order of their keys.

    Raises:
        InputError: a text cannot be written in UTF-8 (half a character in a path).

    Example:
        >>> base, setting = Setting("_BASE_", "a.yaml"), Setting("SOLVER.MAX_ITER", 9, "why")
        >>> print(commented_yaml(["Mine."], base, [setting]), end="")
        # Mine.
        _BASE_: "a.yaml"
        SOLVER:
          MAX_ITER: 9  # why
    """
    tree: dict[str, Any] = {}
    for setting in settings:
        *groups, name = setting.key.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = setting
    lines = [*(f"# {_comment(line)}".rstrip() for line in head), _line(BASE_KEY, base)]
    return "\n".join([*lines, *_lines(tree, "")]) + "\n"


def _lines(tree: Mapping[str, Any], indent: str) -> list[str]:
    texts = {name: _line(name, each, "") for name, each in tree.items() if isinstance(each, Setting)}
    widths = [len(text) for text in texts.values() if len(text) <= _WIDEST]
    column = max(widths, default=0)
    lines = []
    for name, each in tree.items():
        if isinstance(each, Setting):
            text = texts[name].ljust(column) if each.reason else texts[name]
            comment = f"  # {_comment(each.reason)}" if each.reason else ""
            lines.append(f"{indent}{text}{comment}")
        else:
            lines += [f"{indent}{_name(name)}:", *_lines(each, f"{indent}  ")]
    return lines


def _line(name: str, setting: Setting, comment: str | None = None) -> str:
    reason = setting.reason if comment is None else comment
    return f"{_name(name)}: {yaml_value(setting.value)}" + (f"  # {_comment(reason)}" if reason else "")


def yaml_value(value: Any) -> str:
    """A plain value on one line, which the strict loader reads as the same value.

    Example:
        >>> yaml_value(("yes", 1e-5, True)), yaml_value({"img_dir": "a: b"})
        ('["yes", 0.00001, True]', '{img_dir: "a: b"}')
    """
    if isinstance(value, str):
        if not is_text(value):
            raise InputError(f"{value}: holds half a character, which no YAML file can; rename it")
        return yaml.safe_dump(value, default_style='"', allow_unicode=True, width=10**9).strip()
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        text = f"{value:.10f}".rstrip("0")
        return f"{text}0" if text.endswith(".") else text
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_name(name)}: {yaml_value(each)}" for name, each in value.items()) + "}"
    return "[" + ", ".join(map(yaml_value, value)) + "]"


def _name(name: str) -> str:
    """A key; quoted unless it is sure to be read as text."""
    is_word = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) and name.lower() not in _NOT_TEXT
    return name if is_word else yaml_value(name)


def _comment(text: str) -> str:
    """`text` on one line, of characters that YAML allows."""
    return yaml.reader.Reader.NON_PRINTABLE.sub("?", printable(text))
