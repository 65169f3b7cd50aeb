"""cfg -> the steps of INPUT.AUGMENTATIONS."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

from engine.assembly.convention import build_convention
from engine.config.keys.augmentations import STEPS
from engine.data.transforms import AUGMENTATIONS, SceneStep, Sometimes, Step
from engine.errors import InputError, shown
from engine.registry import call_with, import_modules, lookup, taken_by


def build_augmentations(cfg: CfgNode, class_names: Sequence[str] = ()) -> list[Step | SceneStep]:
    """The steps in their order; label k is class_names[k].

    Besides its arguments, a step gets `convention`, `class_names` and `modules` (those of IMPORTS) if its constructor
    has parameters of these names.

    Raises:
        InputError: a step is not registered, or cannot be built with its arguments.
    """
    import_modules(cfg.IMPORTS)
    offers = {"convention": build_convention(cfg), "class_names": tuple(class_names), "modules": tuple(cfg.IMPORTS)}
    return [
        _build(step, f"INPUT.AUGMENTATIONS, step {number} ({step['name']})", offers)
        for number, step in enumerate(cfg.INPUT.AUGMENTATIONS, 1)
    ]


def _build(step: Mapping[str, Any], where: str, offers: Mapping[str, Any]) -> Step | SceneStep:
    name = step["name"]
    part = lookup(AUGMENTATIONS, name, where)
    arguments = {key: value for key, value in step.items() if key != "name"}
    prob = 1.0
    if "prob" not in inspect.signature(part).parameters:
        declared = STEPS.arguments.get(name, {}).get("prob")
        prob = arguments.pop("prob", declared.default if declared else prob)
        if type(prob) not in (int, float) or not 0 <= prob <= 1:  # of a step of the user's own; others are checked
            raise InputError(f"{where}: prob must be between 0 and 1, got {shown(prob)}")
    built = call_with(part, name, arguments, where, taken_by(part, offers))
    return built if prob == 1 else Sometimes(built, prob)
