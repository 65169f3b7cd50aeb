"""Parts by name: the modules of a user that register some, and the look-up that answers a slip with the right name."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fvcore.common.registry import Registry as FvcoreRegistry

from engine.errors import InputError

Part = TypeVar("Part", bound=Callable[..., Any])


class Registry(FvcoreRegistry):
    """fvcore's registry, except that a part is registered under the word that the configuration uses for it.

    Example:
        >>> SHAPES = Registry("SHAPES")
        >>> @SHAPES.register("half-moon")
        ... def half_moon() -> str:
        ...     return "D"
        >>> SHAPES.get("half-moon")()
        'D'
    """

    def register(self, name: str = "") -> Callable[[Part], Part]:
        """A decorator that registers a class or function as `name`, by default under its own name.

        Raises:
            AssertionError: the name is taken.
        """

        def add(part: Part) -> Part:
            self._do_register(name or part.__name__, part)
            return part

        return add

    def names(self) -> list[str]:
        return sorted(name for name, _ in self)


def import_modules(names: Iterable[str]) -> None:
    """Import the modules of `IMPORTS`, so that what they register is known; the working folder is searched too.

    Raises:
        InputError: one of them cannot be found, or something that it imports cannot.
    """
    for name in names:
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"IMPORTS: cannot import {name} ({error}); is its folder on PYTHONPATH?") from error


def lookup(registry: Registry, name: str, key: str) -> Any:
    """What is registered as `name`; `key` is the key of the configuration that holds the name.

    Raises:
        InputError: nothing is; names the nearest ones, else all.
    """
    if name in registry:
        return registry.get(name)
    known = registry.names()
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; there is {', '.join(known) or 'none'}"
    raise InputError(f"{key}: nothing is registered as {name}{hint} (IMPORTS names the modules that register your own)")
