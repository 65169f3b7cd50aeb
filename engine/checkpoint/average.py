"""The mean of several checkpoints of one model, and its batch norm statistics.

The mean of the weights along a training run often generalises better than the last ones (Izmailov et al., 2018: SWA).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.checkpoint.checkpointer import Checkpointer
from engine.checkpoint.image_check import IMAGE_KEYS
from engine.checkpoint.publish import read_own, stripped
from engine.errors import InputError
from engine.structures import ImageBatch, Targets

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def average(paths: Sequence[Path], weights: Sequence[float] | None = None) -> dict[str, Any]:
    """The content of a checkpoint whose `model` is the weighted mean of those in `paths`, summed in float64.

    Integers and masks (such as counters), class names and configuration come from the last file. Score thresholds are
    dropped, because those of the parts do not hold for the mean. One checkpoint of ours is in memory at a time; the
    `weights`, one per path and equal by default, are relative to their sum.

    Raises:
        InputError: wrong weights; or a file that cannot be used, or belongs to another model than the first one. Names
            both files and the first difference.
    """
    weights = _checked_weights(weights, len(paths))
    sums: dict[str, Tensor] = {}
    first: dict[str, Any] = {}
    for path, weight in zip(paths, weights, strict=True):
        content = read_own(path, mmap=True)
        first = first or content
        if difference := _difference(first, content):
            raise InputError(f"{path} cannot be averaged with {paths[0]}: {difference}")
        for name, tensor in content["model"].items():
            if not tensor.is_floating_point():
                continue
            if not tensor.isfinite().all():
                raise InputError(f"{path}: {name} holds NaN or infinity, so training diverged; leave this file out")
            part = tensor.double() * weight
            sums[name] = sums[name].add_(part) if name in sums else part
    state = stripped(content)
    means = {name: (total / sum(weights)).to(state["model"][name].dtype) for name, total in sums.items()}
    return {**state, "model": {**state["model"], **means}, "thresholds": None}


def newest(folder: Path, count: int) -> list[Path]:
    """The last checkpoint of a run and the numbered ones before it, `count` in total, oldest first.

    Raises:
        InputError: there are fewer.
    """
    checkpointer = Checkpointer(folder)
    found = checkpointer.numbered()  # newest first
    if last := checkpointer.last():  # an earlier run in the same folder may have left higher numbers
        iteration = read_own(last, mmap=True).get("iteration", 0)
        found = [last, *(path for path in found if int(path.stem.removeprefix("model_")) < iteration)]
    if len(found) < count:
        have = f"has {len(found)} checkpoints, not {count}" if folder.is_dir() else "is not a folder"
        raise InputError(f"{folder}: {have}; see --last and --dir")
    return found[:count][::-1]


def _checked_weights(weights: Sequence[float] | None, count: int) -> Sequence[float]:
    if weights is None:
        return [1.0] * count
    if len(weights) != count:
        raise InputError(f"got {len(weights)} weights for {count} checkpoints; give one per checkpoint")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights):
        raise InputError(f"weights must be 0 or positive, and not all 0: {', '.join(map(str, weights))}")
    return weights


def _difference(first: dict[str, Any], other: dict[str, Any]) -> str | None:
    """The first difference between the models of two checkpoints, or None."""
    ours, theirs = first["model"], other["model"]
    for name in [*ours, *theirs]:
        if name not in theirs:
            return f"it has no {name}"
        if name not in ours:
            return f"only it has {name}"
        a, b = (f"{list(tensor.shape)} of {str(tensor.dtype)[6:]}" for tensor in (ours[name], theirs[name]))
        if a != b:
            return f"its {name} is {b}, not {a}"
    for key, empty in (("class_names", []), ("conventions", {}), ("norm_eps", {})):
        a, b = (content.get(key) or empty for content in (first, other))
        if key == "conventions":  # checkpoints of earlier versions do not have all
            shared = {each for each in {*a, *b} if each not in IMAGE_KEYS or (each in a and each in b)}
            a, b = ({each: value for each, value in side.items() if each in shared} for side in (a, b))
        if a != b:
            return f"its {key} are {b}, not {a}"
    return None


@torch.no_grad()
def recompute_statistics(
    model: nn.Module, batches: Iterable[tuple[ImageBatch, Sequence[Targets]]]
) -> dict[str, Tensor]:
    """Set the mean and variance of each batch norm to their means over `batches`, computed as in training.

    Layers that learn no statistics in training (frozen ones) are left alone. torch's `update_bn` would reset those too,
    and fvcore's `update_bn_stats` rejects a layer that several levels of a pyramid share.

    Args:
        model: with the weights to compute statistics for; it is left in evaluation mode.
        batches: images and targets, on the model's device; not read if the model has no such layer.

    Returns:
        The new statistics under their names in the state dict; empty if the model has no such layer.
    """
    model.train()
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    }
    momenta = {name: layer.momentum for name, layer in layers.items()}
    for layer in layers.values():
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    for images, targets in batches if layers else ():
        model(images, targets)
    for name, layer in layers.items():
        layer.momentum = momenta[name]
    model.eval()
    return {
        f"{name}.{statistic}": getattr(layer, statistic).detach().cpu().clone()
        for name, layer in layers.items()
        for statistic in STATISTICS
    }
