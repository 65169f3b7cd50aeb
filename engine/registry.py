"""Registries of parts, import of user modules, and a look-up that suggests names for typos."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from fvcore.common.registry import Registry as FvcoreRegistry

from engine.errors import InputError, printable, shown
from engine.spelling import did_you_mean

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
            InputError: the name is taken, or no name (fvcore's form `register(part)` has none).
        """
        if not isinstance(name, str):
            raise InputError(f'{self._name}: write @{self._name}.register("NAME") above {shown(name)}')

        def add(part: Part) -> Part:
            key = name or part.__name__
            if key in self:
                known = self.get(key)
                place = getattr(known, "__module__", getattr(known, "__name__", "?"))  # a module has only a name
                raise InputError(f"{self._name}: {key} is registered already, in {place}; rename yours")
            self._do_register(key, part)
            return part

        return add

    def names(self) -> list[str]:
        return sorted(name for name, _ in self)


def import_modules(names: Iterable[str]) -> None:
    """Import the modules of `IMPORTS`, so that what they register is known; the working folder is searched too.

    Raises:
        InputError: one of them cannot be found, or something that it imports cannot, or its code fails; the message
            names the module, the exception and the line.
    """
    for name in names:
        if "" not in sys.path:
            sys.path.insert(0, "")
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # it runs code of the user's own
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and f"{name}.".startswith(f"{missing}."):
                raise InputError(f"IMPORTS: cannot import {name} ({error}); is its folder on PYTHONPATH?") from error
            raise InputError(f"IMPORTS: cannot import {name}: {_failure(error)}") from error


def _failure(error: BaseException) -> str:
    """The kind of an exception with its message, and the line of the file that it comes from."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "importlib" not in each.filename]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames[1:] else ""  # the first is ours
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return printable(text) + place


def lookup(registry: Registry, name: str, key: str) -> Any:
    """What is registered as `name`; `key` is the key of the configuration that holds the name.

    Raises:
        InputError: no part has this name; the message lists the nearest names, or all.
    """
    if name in registry:
        return registry.get(name)
    known = registry.names()
    hint = did_you_mean(name, known, at_most=2) or (
        f"; there is {', '.join(known)}" if known else "; no names are registered"
    )
    raise InputError(f"{key}: nothing is registered as {name}{hint} (IMPORTS names the modules that register your own)")


_PLAIN = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a word", "None": "null"}
"""Annotations of arguments that are checked, in words."""


def taken_by(part: Callable[..., Any], offers: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `offers` whose names are parameters of `part`.

    Example:
        >>> def conv(channels: int, norm: str) -> str: ...
        >>> taken_by(conv, {"norm": "GN", "freeze_at": 2})
        {'norm': 'GN'}
    """
    return {name: value for name, value in offers.items() if name in inspect.signature(part).parameters}


def call_with(
    part: Callable[..., Any],
    name: str,
    arguments: Mapping[str, Any],
    key: str,
    given: Mapping[str, Any] = MappingProxyType({}),
    offered: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """`part(**given, **arguments)`, after a check of the arguments that the user wrote.

    Args:
        part: what is registered as `name`.
        arguments: what the configuration says below `key`, such as MODEL.BACKBONE.ARGS.
        given: what the engine passes itself and `arguments` may not change.
        offered: what other keys say; `part` gets those that it has parameters for and `arguments` does not name.

    Raises:
        InputError: `part` does not take one of the arguments (names the nearest one, else all), gets it from `given`,
            lacks one that it needs, has another plain type for it ("no" is no bool), or fails with their values.
    """
    parameters = inspect.signature(part).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    named = [each for each in parameters.values() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    free = [each.name for each in named if each.name not in given]
    for argument in arguments:
        if argument in given:
            raise InputError(f"{key}.{argument}: {name} gets this argument from the engine; remove it")
        if argument not in free and not takes_any:
            hint = did_you_mean(argument, free, at_most=2) or f"; it takes {', '.join(free) or 'no free arguments'}"
            raise InputError(f"{key}.{argument}: {name} takes no such argument{hint}")
        words = _other_type(parameters[argument].annotation, arguments[argument]) if argument in parameters else ""
        if words:
            reason = f"{argument} must be {words}, got {shown(arguments[argument])}"
            raise InputError(f"{key}: {name} cannot be built with {shown(dict(arguments))}: {reason}")
    arguments_of_all = {**taken_by(part, offered), **arguments}
    needed = [each.name for each in named if each.default is each.empty and each.name in free]
    missing = [each for each in needed if each not in arguments_of_all]
    if missing:
        raise InputError(f"{key}: {name} needs a value for {', '.join(missing)}")
    try:
        return part(**given, **arguments_of_all)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key}: {name} cannot be built with {shown(dict(arguments))}: {error}") from error


def _other_type(annotation: Any, value: Any) -> str:
    """What an argument must be, in words, if `value` is not; "" if it is, or the annotation says nothing plain.

    Example:
        >>> _other_type("int | None", "3"), _other_type("float", 3), _other_type("Towers", 3)
        ('a whole number or null', '', '')
    """
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    names = [each.strip() for each in text.split("|")]
    if not all(each in _PLAIN for each in names):
        return ""
    own = "None" if value is None else type(value).__name__
    if own in names or (own == "int" and "float" in names):
        return ""
    return " or ".join(_PLAIN[each] for each in names)
