"""What differs between two configurations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yacs.config import CfgNode


def changes(before: str, cfg: CfgNode) -> list[str]:
    """A line "KEY: old -> new" for each key whose value in `cfg` is not the one of the YAML text `before`.

    Keys that only one of them knows (another version wrote the text) are left out, as is a text that is no YAML.
    """
    try:
        old = dict(_leaves(yaml.safe_load(before)))
    except yaml.YAMLError:
        return []
    new = dict(_leaves(yaml.safe_load(cfg.dump())))
    return [f"{key}: {old[key]} -> {value}" for key, value in new.items() if key in old and old[key] != value]


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(node, dict):
        yield prefix, node
        return
    for name, child in node.items():
        yield from _leaves(child, f"{prefix}.{name}" if prefix else str(name))
