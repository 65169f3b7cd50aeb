"""A key that holds an ordered list of named steps: `- {name: Mosaic, prob: 0.3}`.

Arguments of the steps that are declared are checked like keys. A step of the user's own is known only after the
modules of `IMPORTS` are imported; its arguments are any plain values until its constructor checks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.config.coerce import BadValueError, literal, plain_value, read
from engine.config.declaration import LOW_AND_HIGH, Key, Steps, key
from engine.config.yaml_file import Group, PlacedList, collection
from engine.errors import shown
from engine.spelling import did_you_mean

_EXAMPLE = {"name": "HorizontalFlip", "prob": 0.5}


def name_of(key: str, index: int) -> str:
    """What the name of a step is called in messages, and where it was written is kept under."""
    return f"{key}, step {index + 1}: name"


def name_key(steps: Steps) -> Key:
    """The declaration of a step's name."""
    return key("name", "", "The step.", words=tuple(steps.arguments), registry=steps.registry)


def read_steps(steps_key: Key, value: Any, where: str) -> tuple[tuple[dict[str, Any], ...], list[str], list[str]]:
    """The steps of a list as plain values, their places ("my.yaml:12"), and a line for each mistake."""
    value = collection(value)
    value = () if value is None else value
    if isinstance(value, Group) or not isinstance(value, list | tuple):
        form = f"a list of steps such as [{_EXAMPLE}]"
        got = "a mapping" if isinstance(value, Group) else shown(value)
        return (), [], [f"{where}: {steps_key.name} must be {form}, got {got}"]
    steps, places, mistakes = [], [], []
    for index, step in enumerate(value):
        places.append(value.places[index] if isinstance(value, PlacedList) else where)
        try:
            steps.append(_read_step(steps_key.steps, step))
        except BadValueError as error:
            mistakes.append(f"{places[-1]}: {steps_key.name}, step {index + 1}{error}")
    return tuple(steps), places, mistakes


def _read_step(steps: Steps, step: Any) -> dict[str, Any]:
    """A step as a mapping of plain values, the name first.

    Raises:
        BadValueError: the message continues after the number of the step.
    """
    step = {"name": step} if isinstance(step, str) else step
    if not isinstance(step, Mapping):
        raise BadValueError(f" must be a mapping such as {_EXAMPLE}, got {shown(step)}")
    name = step.get("name")
    if not isinstance(name, str) or not name:
        raise BadValueError(f": name must be that of a step, got {'nothing' if name is None else shown(name)}")
    declared = steps.arguments.get(str(name))  # None: a step of the user's own
    checked: dict[str, Any] = {"name": str(name)}
    for argument, value in step.items():
        if not isinstance(argument, str):
            raise BadValueError(f" ({name}): {shown(argument)} is not the name of an argument; quote it")
        if argument == "name":
            continue
        try:
            checked[str(argument)] = (
                plain_value(value) if declared is None else _read_argument(declared, argument, value)
            )
        except BadValueError as error:
            raise BadValueError(f" ({name}): {argument} {error}") from None
    missing = [each for each in declared or () if each not in checked and _is_needed(declared[each])]
    if missing:
        raise BadValueError(f" ({name}) needs {missing[0]}: {declared[missing[0]].doc}")
    return checked


def _read_argument(declared: Mapping[str, Key], argument: str, value: Any) -> Any:
    if argument not in declared:
        names = ", ".join(declared)
        raise BadValueError(f"is no argument of it; it takes {names}{did_you_mean(argument, declared)}")
    if declared[argument].length == LOW_AND_HIGH and isinstance(literal(value), int | float):
        raise BadValueError(f"must be (low, high), got {shown(value)}; write ({value}, {value})")
    read_value = read(declared[argument], value)
    if declared[argument].length == LOW_AND_HIGH and read_value[0] > read_value[1]:
        raise BadValueError(f"must be (low, high) with low <= high, got {shown(read_value)}")
    return read_value


def _is_needed(argument: Key) -> bool:
    """Its default is empty, and it may not be."""
    return argument.default in ((), "") and argument.not_empty
