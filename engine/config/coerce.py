"""A value as someone wrote it, turned into the type that its key demands.

YAML and the command line both deliver strings where a tuple or a number is meant: "(60000, 80000)", "1e-4". They are
read as Python literals (`ast.literal_eval`, which computes nothing), and only where the key is not a string itself.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from engine import errors
from engine.config.declaration import MOST_FLOAT, MOST_INT, Key
from engine.errors import InputError
from engine.files import expanded
from engine.spelling import did_you_mean

_BOOLS = {word: word in ("true", "yes", "on") for word in ("true", "false", "yes", "no", "on", "off")}
"""Besides Python's spelling, those of YAML 1.1, in any case."""


UNCLEAR = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])*(?:\.[0-9_]*)?|[-+]?0[xob][0-9a-fA-F_]+|(?i:yes|no|on|off)")
"""Words that YAML 1.1 reads as something else than they say (010 as 8, 1:30 as 90, no as False), or YAML 1.2 does."""


class Unclear(str):
    """An unquoted `UNCLEAR` word: text for a key that takes text; others read it as a Python literal."""


class BadValueError(ValueError):
    """A value that does not fit its key; the message continues after the key's name."""


def read(key: Key, value: Any) -> Any:
    """The value of `key` in its type, checked against all that is declared about it.

    Words that a module of `IMPORTS` may add to are checked after the import, see `check_words`.

    Raises:
        BadValueError: the value does not fit.
    """
    coerced = _path(value) if key.type is Path else coerce(value, key.type)
    _check_length(key, coerced)
    _check_limits(key, coerced)
    if key.words and not key.words.registry:
        check_words(key, coerced)
    return coerced


def _path(value: Any) -> str:
    if value is None:  # YAML's meaning of ~
        raise BadValueError('must be a str, got nothing; write "", or "~" with the quotes for your home folder')
    try:
        return expanded(coerce(value, str))
    except InputError as error:
        raise BadValueError(str(error)) from None


def coerce(value: Any, type_: Any) -> Any:
    """The value as `type_`.

    Raises:
        BadValueError: it is of another type.

    Example:
        >>> coerce("(60000, 80000)", tuple[int, ...])
        (60000, 80000)
    """
    try:
        return _convert(_meant(value, type_), type_)
    except (TypeError, OverflowError):
        raise BadValueError(f"must be {describe(type_)}, got {shown(value)}{_correction(value, type_)}") from None


def check_words(key: Key, value: str | tuple[str, ...], registered: Iterable[str] = ()) -> None:
    """Checks a word, or each word of a tuple, against the key's words and the names that its registry holds.

    Raises:
        BadValueError: it is none of them.
    """
    if key.words is None:
        return
    allowed = key.words.all(registered)
    for word in (value,) if isinstance(value, str) else value:
        if word in allowed or key.words.is_of_family(word):
            continue
        start = "entries must be" if isinstance(value, tuple) else "must be"
        named = [*allowed, *(f"{each}NAME" for each in key.words.families)]
        names = ", ".join(each or '""' for each in named)
        one_of = " one of" if len(allowed) > 1 else ""
        choices = [f"{one_of} {names}"] * bool(allowed)
        choices += [" registered by a module of IMPORTS"] * bool(key.words.registry)
        raise BadValueError(f"{start}{', or'.join(choices)}, got {shown(word)}{did_you_mean(word, allowed)}")


def describe(type_: Any, plural: bool = False) -> str:
    """A type in words.

    Example:
        >>> describe(tuple[tuple[int, int], ...])
        'a tuple of pairs of int'
    """
    if get_args(type_) == (int, int):
        return "pairs of int" if plural else "a pair of int"
    if get_args(type_):
        return f"a tuple of {describe(get_args(type_)[0], plural=True)}"
    article = "" if plural else "an " if type_ is int else "a "
    return f"{article}{type_.__name__}"


def shown(value: Any) -> str:
    """A value as an error message shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, Unclear):
        value = str(value)
    return "a group of keys" if isinstance(value, dict) else errors.shown(value)


def literal(value: Any) -> Any:
    """A string read as the Python literal it spells; anything else, and a string that spells none, as it is.

    A hexadecimal number of thousands of digits is none either: Python would refuse to print it in a message.
    """
    if not isinstance(value, str) or re.search("[0-9a-fA-F]{1000}", value):
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return value


def plain_value(value: Any) -> Any:
    """A value for an argument, such that it is the same after a dump: lists become tuples.

    Strings are read as elsewhere in the file, where no type tells what is wanted: "(1, 2)" is a tuple and 1e-4, which
    YAML leaves a string, a number.

    Raises:
        BadValueError: it is an object that YAML cannot hold, or nothing tells whether it is text (010, no).
    """
    if isinstance(value, Unclear):
        number = literal(str(value))
        if isinstance(number, str):
            raise BadValueError(f'may be text or not, got {shown(value)}; write a plain number, True, False or "text"')
        value = number
    if isinstance(value, str) and (re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", value) or value[:1] in ("(", "[")):
        value = literal(value)
    if isinstance(value, list | tuple):
        return tuple(plain_value(each) for each in value)
    if isinstance(value, Mapping):  # in a list
        return {str(name) if isinstance(name, Unclear) else name: plain_value(each) for name, each in value.items()}
    if type(value) is int and abs(value) >= 2**63:
        raise BadValueError(f"must be a number of 64 bits, got {shown(value)}")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise BadValueError(f"must be a plain value (a number, string, bool, list or mapping), got {shown(value)}")


def _meant(value: Any, type_: Any) -> Any:
    """What a string stands for where the type is wanted; anything else as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if type_ is str:  # only quotes go, which a shell may have left around it
        is_quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
        parsed = literal(value) if is_quoted else value
        return parsed if isinstance(parsed, str) else value
    if type_ is bool:
        return _BOOLS.get(text.lower(), literal(value))
    return literal(value)


def _convert(value: Any, type_: Any) -> Any:
    """The value as the type: an int passes for a float, a list for a tuple.

    Raises:
        TypeError: it is of another type.
    """
    if arguments := get_args(type_):
        is_any_length = arguments[-1] is Ellipsis
        if not isinstance(value, list | tuple) or not (is_any_length or len(value) == len(arguments)):
            raise TypeError
        return tuple(_convert(element, arguments[0]) for element in value)
    if isinstance(value, Unclear):  # an element of a list
        value = str(value) if type_ is str else _meant(value, type_)
    if type_ is float:
        value = literal(value)  # an element such as 1e-4, which YAML leaves a string
        value = float(value) if type(value) is int else value
    if type(value) is not type_ or (type_ is float and not math.isfinite(value)):
        raise TypeError
    return value


def _correction(value: Any, type_: Any) -> str:
    """What to write instead, where it is plain what was meant; else nothing."""
    if type_ is str:
        if value is None:
            return '; write ""'
        return f'; write "{value}", with the quotes' if isinstance(value, bool | int | float) else ""
    meant = _meant(value, type_)
    if isinstance(value, list) and any(isinstance(element, Unclear) for element in value):
        value = f"({', '.join(map(str, value))},)"
    if isinstance(value, str) and (written := _in_decimals(value, type_)):
        return f"; write {written}"
    if type_ in (int, float) and isinstance(value, str) and ":" in value:
        return "; write one plain number"
    if type_ is int and type(meant) is float and meant.is_integer():
        return f"; write {int(meant)}"
    if type_ is bool and meant in (0, 1):
        return f"; write {bool(meant)}"
    if not get_args(type_) or get_args(type_)[-1] is not Ellipsis or isinstance(meant, list | tuple):
        return ""
    element = get_args(type_)[0]
    if isinstance(meant, str) and meant.startswith(("(", "[")) and element is str:
        return "; each name needs quotes: ('a', 'b')"
    try:
        return f"; write ({_convert(meant, element)!r},)"
    except (TypeError, OverflowError):
        return ""


def _in_decimals(text: str, type_: Any) -> str:
    """A number, or a tuple of them, without the leading zeros that make it octal in YAML 1.1; "" if it has none.

    Example:
        >>> _in_decimals("(010, 20)", tuple[int, ...])
        '(10, 20)'
    """
    without = re.sub(r"(?<![\w.])0+(?=[0-9])", "", text.strip())
    if without == text.strip():
        return ""
    try:
        return repr(_convert(literal(without), type_))
    except (TypeError, OverflowError):
        return ""


def _check_length(key: Key, value: Any) -> None:
    if key.length and len(value) != key.length[0]:
        length, meaning = key.length
        raise BadValueError(f"must have {length} entries ({meaning}), got {shown(value)}")
    if key.not_empty and not value:
        raise BadValueError("must not be empty" if value == "" else "must have at least one entry, got ()")


def _check_limits(key: Key, value: Any) -> None:
    if key.limits is None:
        return
    low, high = key.limits
    numbers = list(_numbers(value))
    if all(low <= number <= high for number in numbers):
        return
    limits = f"between {low} and {high}"
    if high in (MOST_INT, MOST_FLOAT):
        limits = f"{low} or more" if min(numbers) < low else f"{high} or less"
    raise BadValueError(f"must be {limits}, got {shown(value)}")


def _numbers(value: Any) -> Iterator[int | float]:
    """The numbers of a value, of a tuple at any depth."""
    if isinstance(value, tuple):
        for element in value:
            yield from _numbers(element)
    else:
        yield value
