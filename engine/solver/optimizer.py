"""Parameter groups with the learning rates of the reference and of the user, and optimizers by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from engine.errors import InputError
from engine.registry import Registry, taken_by

OPTIMIZERS = Registry("OPTIMIZERS")
"""(groups, lr: float[, momentum: float]) -> torch.optim.Optimizer; holds those of `torch.optim`."""

_UNFIT = ("LBFGS", "SparseAdam", "Muon")  # need a closure, sparse gradients, only matrices
for _name, _optimizer in sorted(inspect.getmembers(torch.optim, inspect.isclass)):
    if issubclass(_optimizer, torch.optim.Optimizer) and _name not in (*_UNFIT, "Optimizer"):
        OPTIMIZERS.register(_name)(_optimizer)

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)  # the first is that of all batch and instance norms
_BODY = "backbone.body"


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    bias_lr_factor: float = 1.0,
    bias_weight_decay: float = 0.0,
    norm_weight_decay: float | None = None,
    offset_lr_factor: float = 1.0,
    backbone_lr_factor: float = 1.0,
    layer_lr_factor: float = 1.0,
    patterns: Mapping[str, Mapping[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Trainable parameters grouped by learning rate and weight decay.

    As in the reference, names with "bias" (those of norms too) get `lr * bias_lr_factor` and `bias_weight_decay`, and
    the offset branches of deformable convolutions are also multiplied by `offset_lr_factor`. The reference makes one
    group per parameter. Equal groups are joined here: the results are the same, and the optimizer updates many
    parameters at once.

    Args:
        norm_weight_decay: for the scales of torch's norms, instead of `weight_decay`; None means `weight_decay`.
        backbone_lr_factor: for all parameters below `backbone.`.
        layer_lr_factor: f; the last stage of the body gets the factor f, the one before f^2, and so on, see `stages`.
        patterns: pattern of names -> {"lr_factor": a further factor, "weight_decay": instead of all others}. If several
            patterns match a name, only the last one counts.

    Returns:
        Groups with "params", "lr", "initial_lr" and "weight_decay". Those with the rate `lr` come first, because the
        log shows the rate of the first group.

    Raises:
        InputError: a pattern matches no parameter, or there is no body for `layer_lr_factor`.
    """
    patterns = patterns or {}
    _check_patterns(patterns, [name for name, _ in model.named_parameters()])
    scales = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, _NORMS)}
    layer_factors = stage_factors(model, layer_lr_factor) if layer_lr_factor != 1 else {}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = lr, weight_decay
        if "bias" in name:
            rate, decay = lr * bias_lr_factor, bias_weight_decay
        elif name in scales and norm_weight_decay is not None:
            decay = norm_weight_decay
        if ".offset." in name:
            rate *= offset_lr_factor
        if name.startswith("backbone."):
            rate *= backbone_lr_factor * layer_factors.get(name, 1.0)
        own = next((fields for each, fields in reversed(patterns.items()) if fnmatchcase(name, each)), {})
        rate *= own.get("lr_factor", 1.0)
        groups.setdefault((rate, own.get("weight_decay", decay)), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in sorted(groups.items(), key=lambda group: group[0][0] != lr)
    ]


def stages(body: nn.Module) -> list[nn.Module]:
    """The parts of a body that have parameters, from the image on.

    They are what the body's `layer_groups()` returns, if it has such a method; else its children, with the elements of
    an `nn.ModuleList` counted one by one. A ResNet has stem, layer1, layer2, layer3 and layer4.
    """
    if hasattr(body, "layer_groups"):
        parts = list(body.layer_groups())
    else:
        parts = [part for child in body.children() for part in (child if isinstance(child, nn.ModuleList) else [child])]
    return [part for part in parts if any(True for _ in part.parameters())]


def stage_factors(model: nn.Module, factor: float) -> dict[str, float]:
    """Name -> factor ** n of the parameters of `backbone.body`: n is 1 in the last stage, 2 in the one before, ...

    Parameters of the body itself, outside its stages, have the first stage's.

    Raises:
        InputError: the model has no such body.
    """
    try:
        body = model.get_submodule(_BODY)
    except AttributeError:
        raise InputError(f"SOLVER.LAYER_LR_FACTOR is {factor:g}, but the model has no {_BODY}; write 1.0") from None
    parts = stages(body)
    exponents = {id(p): n for n, part in enumerate(reversed(parts), 1) for p in part.parameters()}
    return {f"{_BODY}.{name}": factor ** exponents.get(id(p), len(parts)) for name, p in body.named_parameters()}


def _check_patterns(patterns: Iterable[str], names: list[str]) -> None:
    """Raises InputError for a pattern that matches none of the names."""
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            is_module = any(name.startswith(f"{pattern}.") for name in names)
            hint = f"did you mean {pattern}.*?" if is_module else f"their names run from {names[0]} to {names[-1]}"
            raise InputError(f"SOLVER.PARAM_GROUPS: {pattern} matches no parameter of the model; {hint}")


def build_with(
    optimizer: Callable[..., torch.optim.Optimizer], groups: list[dict[str, Any]], momentum: float
) -> torch.optim.Optimizer:
    """An optimizer of `OPTIMIZERS` over `groups`; `momentum` is passed to those that take it (SGD, RMSprop).

    Raises:
        InputError: there are no groups.
    """
    if not groups:
        raise InputError("every parameter is frozen, so there is nothing to train")
    return optimizer(groups, lr=groups[0]["lr"], **taken_by(optimizer, {"momentum": momentum}))
