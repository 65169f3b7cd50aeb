"""Converts weights of other projects into our checkpoints, with the conventions that they were trained with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tabulate import tabulate

from engine.checkpoint.foreign.rename import usual_eps
from engine.checkpoint.heads import heads_fit
from engine.checkpoint.io import FORMAT
from engine.checkpoint.report import part_of
from engine.checkpoint.restricted_pickle import brief
from engine.checkpoint.weights import IMAGENET_HEADS, WeightFile
from engine.errors import InputError, listed

OUR_PARTS = ("backbone.body.", "backbone.fpn.", "rpn.", "roi_heads.")


def with_class_names(file: WeightFile, class_names: Sequence[str]) -> WeightFile:
    """`file` with its classes renamed to `class_names`, in the order of the labels; so are its score thresholds.

    Raises:
        InputError: a name occurs twice, or the heads have another number of classes.
    """
    names = list(class_names)
    if len(set(names)) < len(names):
        raise InputError(f"class names must differ, got {listed(names)}")
    if not heads_fit(file.tensors, len(names)):
        raise InputError(
            f"{file.source}: {len(names)} names ({listed(names)}) do not fit its heads; name all classes in "
            "the order of the labels"
        )
    renamed = dict(zip(file.class_names or [], names, strict=False))
    thresholds = file.thresholds and {
        **file.thresholds,
        "classes": {renamed.get(name, name): entry for name, entry in file.thresholds["classes"].items()},
    }
    return replace(file, class_names=names, thresholds=thresholds)


def checkpoint_of(file: WeightFile) -> dict[str, Any]:
    """The content of our checkpoint for the translated weights `file`, to be written by `checkpoint.save`.

    Raises:
        InputError: no tensor has a name of our models.
    """
    tensors = file.tensors
    if not any(name.startswith(OUR_PARTS) for name in tensors):
        raise InputError(
            f"{file.source}: no tensor has a name of our models ({', '.join(OUR_PARTS)}): it has "
            f"{brief(next(iter(tensors)))}, ...; name its format (--from), or use other weights"
        )
    content = {
        "format": FORMAT,
        "model": {name: tensor.clone() for name, tensor in tensors.items()},
        "class_names": list(file.class_names or []),
        "thresholds": file.thresholds,
        "conventions": dict(file.conventions),
    }
    if file.norm_eps is not None:
        unusual = {name: eps for name, eps in file.norm_eps.items() if eps != usual_eps(name, tensors)}
        content["norm_eps"] = unusual
    return content


def unknown_names(file: WeightFile) -> list[str]:
    """The names that the rules of the format do not translate; no model of ours has them."""
    return sorted(name for name in file.tensors if not name.startswith((*OUR_PARTS, *IMAGENET_HEADS)))


def summary(file: WeightFile) -> str:
    """The numbers of tensors and values in each part, the unknown names, and the conventions."""
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
        lines.append("conventions, applied whenever the file is tested:")
        lines += [f"  {key} {value}" for key, value in file.conventions.items()]
    return "\n".join(lines)
