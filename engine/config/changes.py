"""What differs between two configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from yacs.config import CfgNode

from engine.config.describe import plain
from engine.config.tree import leaves


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
