"""The eps of norm layers: stored in checkpoints, and met where file and model differ.

Batch norm computes (x - mean) / sqrt(variance + eps) * weight + bias. With another eps the same function has another
variance, or, where that would be negative, another weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.checkpoint.foreign.atss import strip_wrappers
from engine.checkpoint.foreign.rename import COUNTER, FROZEN_EPS, TRAINED_EPS, VARIANCE, usual_eps

Tensors = dict[str, Tensor]


def stored_eps(model: nn.Module) -> dict[str, float]:
    """The eps of norm layers by name, for a checkpoint: of those layers where it is not the usual one.

    Usual is 1e-5, and 0 for batch norm without a counter of batches, which is frozen.

    Example:
        >>> stored_eps(nn.Sequential(nn.BatchNorm2d(3, eps=0.001), nn.BatchNorm2d(3), nn.GroupNorm(1, 3, eps=1e-6)))
        {'0': 0.001, '2': 1e-06}
    """
    found = {}
    for name, module in _norms(model):
        is_frozen = _has_variance(module) and getattr(module, COUNTER, None) is None
        if module.eps != (FROZEN_EPS if is_frozen else TRAINED_EPS):
            found[name] = float(module.eps)
    return found


def with_model_eps(tensors: Tensors, model: nn.Module, stated: Mapping[str, float] | None) -> Tensors:
    """Tensors with which the batch norms of `model` compute what they do in the file, each with its own eps.

    The difference is added to the running variance. A variance would fall below 0 where the model's eps is larger than
    variance and eps of the file together; then it is 0 and the weight is scaled.

    Args:
        tensors: of the file, under our names.
        model: its layers have the eps to meet.
        stated: the eps of the file by name of the layer, for others `usual_eps`; None if the file states none: layers
            with an eps that is not usual in ours either are then taken to have the same in the file.
    """
    changed = dict(tensors)
    for name, module in _norms(model):
        variance = tensors.get(f"{name}{VARIANCE}")
        if variance is None or not _has_variance(module):
            continue
        file_eps = _eps_in_file(name, module, tensors, stated)
        if file_eps == module.eps:
            continue
        total = variance.double() + file_eps  # (C,)
        shifted = (total - module.eps).clamp(min=0)
        changed[f"{name}{VARIANCE}"] = shifted.to(torch.promote_types(variance.dtype, torch.float32))
        weight = tensors.get(f"{name}.weight")
        is_cut = (total < module.eps) & (total > 0)
        if weight is not None and weight.shape == is_cut.shape and is_cut.any():
            scaled = weight.double() * (module.eps / total).sqrt()
            changed[f"{name}.weight"] = torch.where(is_cut, scaled, weight.double()).to(weight.dtype)
    return changed


def eps_notes(tensors: Mapping[str, Tensor], model: nn.Module, stated: Mapping[str, float]) -> list[str]:
    """A line on the layers that normalise by the statistics of the image itself, with another eps than in the file.

    There is nothing in such a layer that could make up for it.
    """
    differing = [
        (name, stated.get(name, TRAINED_EPS), module.eps)
        for name, module in _norms(model)
        if not _has_variance(module) and f"{name}.weight" in tensors and stated.get(name, TRAINED_EPS) != module.eps
    ]
    if not differing:
        return []
    name, theirs, ours = differing[0]
    return [
        f"{len(differing)} norms have another eps than in the file, first {name}: {ours:g}, in the file {theirs:g}; "
        "give them that of the file"
    ]


def _eps_in_file(name: str, module: nn.Module, tensors: Tensors, stated: Mapping[str, float] | None) -> float:
    if stated is not None:
        return stated.get(name, usual_eps(name, tensors))
    # An eps that the norms of this engine do not have was chosen for these weights.
    usual_here = TRAINED_EPS if isinstance(module, _BatchNorm) else FROZEN_EPS
    return usual_eps(name, tensors) if module.eps == usual_here else module.eps


def _norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers with an eps, by name without wrappers."""
    for name, module in model.named_modules():
        if isinstance(getattr(module, "eps", None), float | int):
            yield strip_wrappers(name), module


def _has_variance(module: nn.Module) -> bool:
    return isinstance(getattr(module, "running_var", None), Tensor)
