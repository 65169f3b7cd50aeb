"""Parameter groups with the reference's rates, for any optimizer of `torch.optim`."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from engine.errors import InputError


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    bias_lr_factor: float = 1.0,
    bias_weight_decay: float = 0.0,
    offset_lr_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Trainable parameters grouped by learning rate and weight decay, as the reference sets them.

    Names with "bias" (those of norms too) get `lr * bias_lr_factor` and `bias_weight_decay`; offset branches of
    deformable convolutions besides `offset_lr_factor`. The reference makes one group a parameter; equal ones are joined
    here, which changes no figure and lets the optimizer work on many parameters at once.

    Returns:
        Groups with "params", "lr", "initial_lr" and "weight_decay".
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = "bias" in name
        rate = lr * bias_lr_factor if is_bias else lr
        if ".offset." in name:
            rate *= offset_lr_factor
        groups.setdefault((rate, bias_weight_decay if is_bias else weight_decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def optimizer_by_name(name: str, groups: list[dict[str, Any]], momentum: float) -> torch.optim.Optimizer:
    """The optimizer `torch.optim.<name>`; `momentum` reaches those that know it (SGD, RMSprop).

    Raises:
        InputError: `torch.optim` has no optimizer of that name.
    """
    cls = getattr(torch.optim, name, None)
    if not (inspect.isclass(cls) and issubclass(cls, torch.optim.Optimizer)):
        raise InputError(f"SOLVER.OPTIMIZER {name} is not an optimizer of torch.optim; try SGD or AdamW")
    knows_momentum = "momentum" in inspect.signature(cls).parameters
    return cls(groups, lr=groups[0]["lr"], **({"momentum": momentum} if knows_momentum else {}))
