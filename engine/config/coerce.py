"""A value as someone wrote it, turned into the type its key demands.

YAML and the command line both deliver strings where a tuple or a number is meant: "(60000, 80000)",
"1e-4". They are read as Python literals (`ast.literal_eval`, which computes nothing), and only
where the key is no string itself.
"""

from __future__ import annotations

import ast
import math
from typing import Any, get_args

from engine.config.schema import LENGTHS, NOT_EMPTY, RANGES, WORDS
from engine.config.spelling import nearest_word


class BadValueError(ValueError):
    """A value that does not fit its key; the message goes on after the key's name."""


def coerce(key: str, value: Any, type_: Any) -> Any:
    """The value of `key` as `type_`, checked against the key's length, range and closed set of
    words.

    Raises:
        BadValueError: the value does not fit.

    Example:
        >>> coerce("SOLVER.STEPS", "(60000, 80000)", tuple[int, ...])
        (60000, 80000)
    """
    try:
        coerced = _convert(_literal(value, type_), type_)
    except (TypeError, OverflowError):
        raise BadValueError(f"must be {describe(type_)}, got {shown(value)}{_way_out(value, type_)}") from None
    _check_length(key, coerced)
    _check_range(key, coerced)
    if key in WORDS and not WORDS[key].is_open:
        check_word(key, coerced)
    return coerced


def check_word(key: str, value: str) -> None:
    """Raises BadValueError where the key has a set of words and this is none of them."""
    words = WORDS.get(key)
    if words is None or value in words.allowed:
        return
    names = ", ".join(word or '""' for word in words.allowed)
    nearest = nearest_word(value, words.allowed)
    hint = f"; did you mean {nearest}?" if nearest else ""
    start = "must be one of " if len(words.allowed) > 1 else "must be "
    raise BadValueError(f"{start}{names}, got {value!r}{hint}")


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
    if plural:
        return type_.__name__
    return f"an {type_.__name__}" if type_ is int else f"a {type_.__name__}"


def _literal(value: Any, type_: Any) -> Any:
    """A string read as the literal it stands for; itself when it is none or none is wanted."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if type_ is str:
        is_quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
        parsed = _parsed(text) if is_quoted else None
        return parsed if isinstance(parsed, str) else value
    if type_ is bool and text in ("true", "false"):
        return text == "true"
    parsed = _parsed(text)
    return value if parsed is None else parsed


def _parsed(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


def _convert(value: Any, type_: Any) -> Any:
    """The value as the type: an int passes for a float, a list for a tuple.

    Raises:
        TypeError: it is of another type.
    """
    arguments = get_args(type_)
    if arguments:
        if not isinstance(value, (list, tuple)):
            raise TypeError
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise TypeError
        return tuple(_convert(element, arguments[0]) for element in value)
    if type_ is float and type(value) is int:
        value = float(value)
    if type_ is float and isinstance(value, str):
        value = _number(value)
    if type(value) is not type_ or (type_ is float and not math.isfinite(value)):
        raise TypeError
    return value


def _number(text: str) -> float:
    """An element such as 1e-4, which YAML leaves a string."""
    parsed = _parsed(text.strip())
    if type(parsed) not in (int, float):
        raise TypeError
    return float(parsed)


def shown(value: Any) -> str:
    """A value as an error message shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a group of keys"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _way_out(value: Any, type_: Any) -> str:
    """What to write instead, where it is plain what was meant; else nothing."""
    literal = _literal(value, type_)
    if type_ is str:
        if literal is None:
            return '; write ""'
        is_scalar = isinstance(literal, (bool, int, float))
        return f'; write "{literal}", with the quotes' if is_scalar else ""
    if type_ is int and type(literal) is float and literal.is_integer():
        return f"; write {int(literal)}"
    if type_ is bool and literal in (0, 1):
        return f"; write {bool(literal)}"
    element = (get_args(type_) or (None,))[0]
    if element is not None and not isinstance(literal, (list, tuple)):
        if isinstance(literal, str) and literal.startswith(("(", "[")) and element is str:
            return "; each name needs quotes: ('a', 'b')"
        try:
            return f"; write ({_convert(literal, element)!r},)"
        except (TypeError, OverflowError):
            return ""
    return ""


def _check_length(key: str, value: Any) -> None:
    if key in LENGTHS and len(value) != LENGTHS[key][0]:
        length, meaning = LENGTHS[key]
        raise BadValueError(f"must have {length} entries ({meaning}), got {shown(value)}")
    if key in NOT_EMPTY and not value:
        raise BadValueError("must have at least one entry, got ()")


def _check_range(key: str, value: Any) -> None:
    if key not in RANGES:
        return
    low, high = RANGES[key]
    elements = value if isinstance(value, tuple) else (value,)
    if all(low <= element <= high for element in elements):
        return
    limits = f"{low} or more" if math.isinf(high) else f"between {low} and {high}"
    raise BadValueError(f"must be {limits}, got {shown(value)}")
