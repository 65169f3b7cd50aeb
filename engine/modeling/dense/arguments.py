"""Checks of `MODEL.DENSE.ARGS`; `registry.call_with` puts the key before what they say."""

from __future__ import annotations

import math
from numbers import Real


def check_range(
    at_least: float = -math.inf, at_most: float = math.inf, above: float = -math.inf, **values: object
) -> None:
    """Each of `values` must be a finite number within the limits.

    Raises:
        ValueError: names the argument and its limits.

    Example:
        >>> check_range(at_least=1, reg_max=0)
        Traceback (most recent call last):
        ValueError: reg_max must be at least 1, got 0
    """
    limits = (("at least", at_least), ("above", above), ("at most", at_most))
    wanted = " and ".join(f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)) or "finite"
    for name, value in values.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not (at_least <= value <= at_most and value > above):
            raise ValueError(f"{name} must be {wanted if is_number else 'a number ' + wanted}, got {value!r}")


def check_counts(at_least: int = 0, **values: object) -> None:
    """Each of `values` must be a whole number.

    Raises:
        ValueError: names the argument and what it may be.

    Example:
        >>> check_counts(at_least=1, topk=2.5)
        Traceback (most recent call last):
        ValueError: topk must be a whole number of at least 1, got 2.5
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
