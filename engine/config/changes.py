"""What differs between two configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from yacs.config import CfgNode

from engine.config.schema import PARAM_GROUPS_KEY, leaves


def changes(before: str, cfg: CfgNode) -> list[str]:
    """A line "KEY: old -> new" for each key whose value in `cfg` is not the one of the YAML text `before`.

    Keys that only one of them knows (another version wrote the text) are left out, as is a text that is no tree.
    """
    try:
        tree = yaml.safe_load(before)
    except yaml.YAMLError:
        return []
    old = dict(leaves(tree)) if isinstance(tree, dict) else {}
    new = dict(leaves(yaml.safe_load(cfg.dump())))
    return [
        f"{key}: {old[key]} -> {value}"
        for key, value in new.items()
        if key in old and _compared(key, old[key]) != _compared(key, value)
    ]


def _compared(key: str, value: Any) -> Any:
    """Of parameter groups the order matters too: the last pattern that fits counts."""
    return list(value.items()) if key == PARAM_GROUPS_KEY and isinstance(value, Mapping) else value
