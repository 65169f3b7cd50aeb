"""A trained model as a file for other runtimes: one graph from pixels to detections, and its writers.

`engine.export(...)` is also the function that writes such a file; see docs/decisions/export_name.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _CallableRoom(ModuleType):
    """This package, which can be called."""

    def __call__(self, config: Any, weights: str | Path, output: str | Path, *options: Any, **named: Any) -> Path:
        """`engine.assembly.export.export`, which says what it takes."""
        return sys.modules["engine"].call_export(config, weights, output, *options, **named)


sys.modules[__name__].__class__ = _CallableRoom
