"""Parts by name: the modules of a user that register some, and the look-up that answers a slip with the right name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from fvcore.common.registry import Registry

from engine.errors import InputError
from engine.spelling import did_you_mean


def import_modules(names: Iterable[str]) -> None:
    """Import the modules of `IMPORTS`, so that what they register is known; the working folder is searched too.

    Raises:
        InputError: one of them cannot be found, or what it imports cannot.
    """
    for name in names:
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"IMPORTS: cannot import {name} ({error}); is its folder on PYTHONPATH?") from error


def registered_names(registry: str) -> list[str]:
    """The names that the registry "module.NAME" holds.

    Example:
        >>> "GN" in registered_names("engine.layers.norm.NORMS")
        True
    """
    module, _, name = registry.rpartition(".")
    return [each for each, _ in getattr(importlib.import_module(module), name)]


def lookup(registry: Registry, name: str, key: str) -> Any:
    """What is registered as `name`; `key` is the configuration's key that says so.

    Raises:
        InputError: nothing is; names the nearest ones and what is there.
    """
    if name in registry:
        return registry.get(name)
    known = sorted(each for each, _ in registry)
    hint = did_you_mean(name, known, at_most=2) or f"; there is {', '.join(known) or 'none'}"
    raise InputError(f"{key}: nothing is registered as {name}{hint} (IMPORTS names the modules that register your own)")
