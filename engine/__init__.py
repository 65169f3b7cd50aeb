"""A declarative ATSS / Cascade R-CNN detection engine.

The public names are loaded on first use, so that `import engine` (and every command's --help) is instant.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "get_cfg": "engine.config",
    "build_model": "engine.assembly.model",
    "build_train_loader": "engine.assembly.data",
    "build_test_loader": "engine.assembly.data",
    "train": "engine.assembly.training",
    "evaluate": "engine.assembly.testing",
    "load_weights": "engine.checkpoint",
    "Predictor": "engine.assembly.detector",
    "Targets": "engine.structures",
    "Detections": "engine.structures",
}

__all__ = [*_HOMES, "export"]


def __getattr__(name: str) -> Any:
    if name == "export":  # a package and a function, see docs/decisions/export_name.md
        return importlib.import_module("engine.export")
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def call_export(*args: Any, **kwargs: Any) -> Any:
    """What `engine.export(...)` calls."""
    return importlib.import_module("engine.assembly.export").export(*args, **kwargs)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
