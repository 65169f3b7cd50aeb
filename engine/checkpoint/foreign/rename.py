"""Shared by the translations of foreign names: renaming rules, and changes of the tensors themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Rule = tuple[str, "str | Callable[[re.Match[str]], str]"]
COUNTER = "num_batches_tracked"
VARIANCE = ".running_var"
TRAINED_EPS, FROZEN_EPS = 1e-5, 0.0
"""Of the reference's batch norms and ours, trainable (which have counters) and frozen, unless a file says otherwise."""
CLASSIFIER = "classifier."
"""What of a network is not its body has names below it."""


def rgb_conventions(mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """The keys of images that are RGB in [0, 1] and normalised by `mean` and `std`."""
    return {"INPUT.TO_BGR255": False, "INPUT.PIXEL_MEAN": tuple(mean), "INPUT.PIXEL_STD": tuple(std)}


IMAGENET_RGB = rgb_conventions((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The images of torchvision's bodies: RGB in [0, 1], normalised by the statistics of ImageNet."""


def rename(name: str, rules: Sequence[Rule]) -> str:
    """`name` after the first matching rule (pattern of its beginning, replacement); unchanged if none matches.

    Example:
        >>> rename("head.conv.0.weight", [(r"head[.]conv[.](\\d)", r"tower.\\1")])
        'tower.0.weight'
    """
    for pattern, replacement in rules:
        renamed, count = re.subn(rf"^{pattern}", replacement, name)
        if count:
            return renamed
    return name


def usual_eps(layer: str, tensors: Mapping[str, Tensor]) -> float:
    """The eps of a layer of the file `tensors` that states none: 0 for frozen batch norm, else 1e-5."""
    is_frozen = f"{layer}{VARIANCE}" in tensors and f"{layer}.{COUNTER}" not in tensors
    return FROZEN_EPS if is_frozen else TRAINED_EPS


def usual_norm_eps(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """`usual_eps` of each batch norm, by the name of its layer.

    Example:
        >>> usual_norm_eps({"bn.running_var": torch.ones(1)})
        {'bn': 0.0}
    """
    layers = [name.removesuffix(VARIANCE) for name in tensors if name.endswith(VARIANCE)]
    return {layer: usual_eps(layer, tensors) for layer in layers}


def with_frozen_norm_eps(tensors: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """`tensors` with `eps` added to the variances of frozen norms, which are those without a batch counter."""
    return {
        name: tensor + eps
        if name.endswith("running_var") and name.replace("running_var", COUNTER) not in tensors
        else tensor
        for name, tensor in tensors.items()
    }


def with_tower_biases(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` with zeros for the biases that convolutions before a group norm of a tower lack; ours have them."""
    convs = {name: tensor for name, tensor in tensors.items() if "_tower." in name and tensor.ndim == 4}
    return {**{name.replace("weight", "bias"): torch.zeros(len(conv)) for name, conv in convs.items()}, **tensors}


def regroup_anchors(tensors: Mapping[str, Tensor], num_ratios: int) -> dict[str, Tensor]:
    """`tensors` with the output channels of RetinaNet's predictors changed from size-major to ratio-major anchors.

    Raises:
        ValueError: `num_ratios` does not divide the number of anchors.
    """
    num_anchors = len(tensors["rpn.head.bbox_pred.bias"]) // 4
    order = torch.arange(num_anchors).reshape(-1, num_ratios).t().reshape(-1)  # their anchor for each of ours
    changed = {
        name: tensors[name].unflatten(0, (num_anchors, -1))[order].flatten(0, 1)
        for predictor in ("cls_logits", "bbox_pred")
        for name in (f"rpn.head.{predictor}.weight", f"rpn.head.{predictor}.bias")
    }
    return {**tensors, **changed}
