"""Weights of other projects into a checkpoint of ours, with the conventions that they were trained with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from engine.checkpoint import foreign
from engine.checkpoint.foreign import torchvision
from engine.checkpoint.foreign.rename import with_frozen_norm_eps
from engine.checkpoint.io import FORMAT
from engine.checkpoint.report import part_of
from engine.checkpoint.weights import WeightFile

OUR_PARTS = ("backbone.", "rpn.", "roi_heads.", "fc.", "fc1000.")


def checkpoint_of(file: WeightFile, class_names: Sequence[str] | None = None) -> dict[str, Any]:
    """What `checkpoint.save` writes for the translated weights `file`."""
    tensors = file.tensors
    if file.format == "torchvision":  # its eps goes into the variances, since the file's format is forgotten
        tensors = with_frozen_norm_eps(tensors, torchvision.NORM_EPS)
    return {
        "format": FORMAT,
        "model": {name: tensor.clone() for name, tensor in tensors.items()},
        "class_names": list(class_names or file.class_names or []),
        "thresholds": file.thresholds,
        "conventions": dict(file.conventions),
    }


def unknown_names(file: WeightFile) -> list[str]:
    """The names that no rule of the format translated, so that no model has them."""
    return sorted(name for name in file.tensors if not name.startswith(OUR_PARTS))


def summary(file: WeightFile) -> str:
    """Tensors and numbers of each part, what is unknown, and the conventions."""
    tensors, numbers = Counter(), Counter()
    for name, tensor in file.tensors.items():
        tensors[part_of(name)] += 1
        numbers[part_of(name)] += tensor.numel()
    rows = [(part, tensors[part], numbers[part]) for part in sorted(tensors)]
    rows.append(("all", sum(tensors.values()), sum(numbers.values())))
    lines = [f"format: {file.format}", tabulate(rows, headers=("part", "tensors", "numbers"), intfmt=",")]
    unknown = unknown_names(file)
    if unknown:
        lines.append(f"{len(unknown)} names are unknown, such as {unknown[0]}")
    if file.conventions:
        lines.append("conventions, followed wherever the file is tested:")
        lines += [f"  {key} {value}" for key, value in file.conventions.items()]
    return "\n".join(lines)


def choices() -> list[str]:
    """What a file's format may be said to be."""
    return ["auto", *(name for name in foreign.FORMATS if name != "torchvision_detection")]
