from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.errors import InputError
from engine.solver.optimizer import optimizer_by_name, parameter_groups


def _model() -> nn.Module:
    model = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "dcn": nn.ModuleDict({"offset": nn.Conv2d(1, 1, 1)})})
    model["frozen"] = nn.Linear(1, 1).requires_grad_(False)
    return model


def test_groups() -> None:
    model = _model()
    groups = parameter_groups(model, 0.1, 0.01, bias_lr_factor=2.0, bias_weight_decay=0.5, offset_lr_factor=3.0)
    names = {id(p): name for name, p in model.named_parameters()}
    rates = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    expected = {
        "conv.weight": (0.1, 0.01),
        "conv.bias": (0.2, 0.5),
        "dcn.offset.weight": (0.3, 0.01),
        "dcn.offset.bias": (0.6, 0.5),
    }
    assert rates.keys() == expected.keys()
    assert all(rates[name] == pytest.approx(expected[name]) for name in expected)
    assert all(group["initial_lr"] == group["lr"] for group in groups)


@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "Adagrad"])
def test_optimizers_by_name(name: str) -> None:
    optimizer = optimizer_by_name(name, parameter_groups(_model(), 0.1, 0.01), momentum=0.8)
    assert type(optimizer) is getattr(torch.optim, name)
    assert optimizer.param_groups[0].get("momentum", 0.8) == 0.8


@pytest.mark.parametrize("name", ["Sgd", "Optimizer3", "lr_scheduler"])
def test_what_is_no_optimizer(name: str) -> None:
    with pytest.raises(InputError, match=name):
        optimizer_by_name(name, parameter_groups(_model(), 0.1, 0.01), 0.9)
