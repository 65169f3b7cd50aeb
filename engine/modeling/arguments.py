"""Checks of the arguments of parts (`MODEL.DENSE.ARGS`, `MODEL.NECK.ARGS`, `MODEL.BACKBONE.ARGS`).

`registry.call_with` puts the key before what they say.
"""

from __future__ import annotations

import math
from numbers import Real

from engine.config.declaration import MAX_CHANNELS

MOST_LAYERS = 100
"""Of a kind in a row, as of the keys NUM_CONVS: more only fill the memory."""
MOST_LEVELS = 10
"""Of a pyramid; from P3 on the coarsest has one cell for 4,096 pixels then."""


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


def check_counts(at_least: int = 0, at_most: int | None = None, **values: object) -> None:
    """Each of `values` must be a whole number.

    Raises:
        ValueError: names the argument and what it may be.

    Example:
        >>> check_counts(at_least=1, topk=2.5)
        Traceback (most recent call last):
        ValueError: topk must be a whole number of at least 1, got 2.5
    """
    for name, value in values.items():
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or value < at_least or (at_most is not None and value > at_most):
            limit = "" if at_most is None else f" and at most {at_most}"
            raise ValueError(f"{name} must be a whole number of at least {at_least}{limit}, got {value!r}")


def check_channels(**values: object) -> None:
    """Each of `values` must be a possible number of channels.

    Raises:
        ValueError: names the argument and its limits.
    """
    check_counts(at_least=1, at_most=MAX_CHANNELS, **values)
