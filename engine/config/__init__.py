"""The configuration: a yacs tree of documented keys (`defaults`), merged strictly (`merge`) and
checked (`rules`).

Reads no other part of the engine and imports nothing heavy, so that a mistake is answered at once.
"""

from __future__ import annotations

from engine.config.describe import changes
from engine.config.node import CfgNode, get_cfg, load_config, split_overrides

__all__ = ["CfgNode", "changes", "get_cfg", "load_config", "split_overrides"]
