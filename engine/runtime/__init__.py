"""Detection from an exported file. Nothing here imports torch."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {"Detector": "engine.runtime.detector", "Detections": "engine.runtime.detections"}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
