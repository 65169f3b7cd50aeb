"""`SOLVER.PARAM_GROUPS`: pattern of parameter names -> {lr_factor, weight_decay}, one of them or both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engine.config.coerce import BadValueError, coerce, shown
from engine.config.free import FreeMapping
from engine.config.schema import PARAM_GROUPS_KEY


def _not_negative(value: Any) -> float:
    number = coerce(PARAM_GROUPS_KEY, value, float)
    if number < 0:
        raise BadValueError(f"must be 0 or more, got {shown(number)}")
    return number


PARAM_GROUPS = FreeMapping(
    PARAM_GROUPS_KEY,
    names="patterns of names",
    form="{lr_factor: NUMBER, weight_decay: NUMBER}",
    readers={"lr_factor": _not_negative, "weight_decay": _not_negative},
)


def idle_patterns(groups: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of patterns without a field."""
    for pattern, fields in groups.items():
        if not fields:
            key = f"{PARAM_GROUPS_KEY}.{pattern}"
            yield key, f"{key} changes nothing; write {' or '.join(PARAM_GROUPS.readers)} below it"
