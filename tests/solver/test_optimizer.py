from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import InputError
from engine.layers.norm import norm
from engine.modeling.bodies.resnet import ResNet
from engine.solver.optimizer import OPTIMIZERS, build_with, parameter_groups, stages


def _model() -> nn.Module:
    model = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 1), "dcn": nn.ModuleDict({"offset": nn.Conv2d(1, 1, 1)})})
    model["frozen"] = nn.Linear(1, 1).requires_grad_(False)
    return model


def _body_model(body: nn.Module) -> nn.Module:
    return nn.ModuleDict({"backbone": nn.ModuleDict({"body": body, "fpn": nn.Linear(1, 1)}), "rpn": nn.Linear(1, 1)})


def _figures(model: nn.Module, *args: Any, **keys: Any) -> dict[str, tuple[float, float]]:
    """Name -> (rate, decay)."""
    groups = parameter_groups(model, *args, **keys)
    names = {id(p): name for name, p in model.named_parameters()}
    assert all(group["initial_lr"] == group["lr"] for group in groups)
    pairs = [(group["lr"], group["weight_decay"]) for group in groups]
    assert len(set(pairs)) == len(pairs)  # equal groups are joined
    return {names[id(p)]: pair for pair, group in zip(pairs, groups, strict=True) for p in group["params"]}


def _check(figures: dict[str, tuple[float, float]], expected: dict[str, tuple[float, float]]) -> None:
    assert figures.keys() == expected.keys()
    assert all(figures[name] == pytest.approx(expected[name]) for name in expected)


def test_groups() -> None:
    figures = _figures(_model(), 0.1, 0.01, bias_lr_factor=2.0, bias_weight_decay=0.5, offset_lr_factor=3.0)
    expected = {
        "conv.weight": (0.1, 0.01),
        "conv.bias": (0.2, 0.5),
        "dcn.offset.weight": (0.3, 0.01),
        "dcn.offset.bias": (0.6, 0.5),
    }
    _check(figures, expected)


@pytest.mark.parametrize("name", ["BN", "SyncBN", "GN"])
def test_scales_of_norms(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 32, 1), norm(name, 32))
    _check(
        _figures(model, 1.0, 0.1, bias_weight_decay=0.2, norm_weight_decay=0.0),
        {"0.weight": (1, 0.1), "0.bias": (1, 0.2), "1.weight": (1, 0.0), "1.bias": (1, 0.2)},
    )
    assert _figures(model, 1.0, 0.1)["1.weight"] == (1, 0.1)


def test_frozen_norms_have_no_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(1, 32, 1), norm("FrozenBN", 32))
    assert set(_figures(model, 1.0, 0.1, norm_weight_decay=0.0)) == {"0.weight", "0.bias"}


def test_backbone_factor_takes_the_pyramid_along() -> None:
    figures = _figures(_body_model(nn.Sequential(nn.Linear(1, 1))), 1.0, 0.1, backbone_lr_factor=0.1)
    rates = {name: rate for name, (rate, _) in figures.items() if "bias" not in name}
    assert rates == {"backbone.body.0.weight": 0.1, "backbone.fpn.weight": 0.1, "rpn.weight": 1.0}


def test_layer_factor() -> None:
    rates: dict[str, set[float]] = {}
    for name, (rate, _) in _figures(_body_model(ResNet(18, norm_name="BN")), 1.0, 0.1, layer_lr_factor=0.5).items():
        part = name.split(".")[2] if name.startswith("backbone.body") else name.rpartition(".")[0]
        rates.setdefault(part, set()).add(rate)
    assert rates == {
        "stem": {0.5**5},
        "layer1": {0.5**4},
        "layer2": {0.5**3},
        "layer3": {0.5**2},
        "layer4": {0.5},
        "backbone.fpn": {1.0},
        "rpn": {1.0},
    }


class _ListBody(nn.Module):
    """A body with stages in a list, a part without parameters, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1))
        self.stages = nn.ModuleList([nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)])
        self.pool = nn.MaxPool2d(2)


def test_stages_of_another_body() -> None:
    body = _ListBody()
    assert stages(body) == list(body.stages)
    figures = _figures(_body_model(body), 1.0, 0.1, layer_lr_factor=0.5)
    rates = {name.removeprefix("backbone.body."): rate for name, (rate, _) in figures.items() if ".body." in name}
    assert rates == {"position": 0.25, "stages.0.weight": 0.25, "stages.1.weight": 0.5}


class _GroupedBody(nn.Module):
    """Two of its three layers form one part; they are declared from the last to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.b, self.a = (nn.Linear(1, 1, bias=False) for _ in range(3))

    def layer_groups(self) -> list[nn.Module]:
        return [nn.ModuleList([self.a, self.b]), self.c]


def test_a_body_states_its_own_parts() -> None:
    figures = _figures(_body_model(_GroupedBody()), 1.0, 0.1, layer_lr_factor=0.5)
    rates = {name.removeprefix("backbone.body."): rate for name, (rate, _) in figures.items() if ".body." in name}
    assert rates == {"a.weight": 0.25, "b.weight": 0.25, "c.weight": 0.5}


def test_parts_of_a_resnet() -> None:
    body = ResNet(18)
    assert stages(body) == [body.stem, body.layer1, body.layer2, body.layer3, body.layer4]
    assert stages(body) == list(body.children())


def test_the_first_group_has_the_plain_rate() -> None:
    groups = parameter_groups(_body_model(nn.Sequential(nn.Linear(1, 1))), 0.1, 0.01, backbone_lr_factor=0.5)
    assert [group["lr"] for group in groups] == [0.1, 0.1, 0.05, 0.05]  # weights and biases of each


def test_no_body_for_a_layer_factor() -> None:
    with pytest.raises(InputError, match=r"^SOLVER.LAYER_LR_FACTOR is 0.5, but the model has no backbone.body; write"):
        parameter_groups(_model(), 0.1, 0.01, layer_lr_factor=0.5)


def test_the_last_pattern_that_fits_counts() -> None:
    patterns = {
        "*": {"lr_factor": 10.0, "weight_decay": 9.0},
        "conv.*": {"lr_factor": 0.5},
        "*.offset.bias": {"weight_decay": 0.0},
        "frozen.*": {"lr_factor": 7.0},
    }
    figures = _figures(_model(), 1.0, 0.1, bias_lr_factor=2.0, bias_weight_decay=0.3, patterns=patterns)
    expected = {
        "conv.weight": (0.5, 0.1),
        "conv.bias": (1.0, 0.3),
        "dcn.offset.weight": (10.0, 9.0),
        "dcn.offset.bias": (2.0, 0.0),
    }
    _check(figures, expected)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("conf.*", "their names run from conv.weight to frozen.bias"),
        ("Conv.weight", "their names run from conv.weight to frozen.bias"),
        ("dcn.offset", "did you mean dcn.offset.*?"),
    ],
)
def test_a_pattern_that_fits_nothing(pattern: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        parameter_groups(_model(), 0.1, 0.01, patterns={"*": {"lr_factor": 1.0}, pattern: {"lr_factor": 1.0}})
    assert str(caught.value) == f"SOLVER.PARAM_GROUPS: {pattern} matches no parameter of the model; {hint}"


@pytest.mark.parametrize("name", sorted(name for name, _ in OPTIMIZERS if hasattr(torch.optim, name)))
def test_optimizers_step(name: str) -> None:
    model = _model()
    optimizer = build_with(OPTIMIZERS.get(name), parameter_groups(model, 0.1, 0.01), momentum=0.8)
    assert type(optimizer) is getattr(torch.optim, name)
    assert optimizer.param_groups[0].get("momentum", 0.8) == 0.8
    before = model["conv"].weight.clone()
    model["conv"](torch.ones(1, 1, 1, 1)).sum().backward()
    optimizer.step()
    assert not torch.equal(model["conv"].weight, before)


def test_what_is_no_optimizer() -> None:
    assert not {"Optimizer", "lr_scheduler", "LBFGS", "SparseAdam", "Muon"} & {name for name, _ in OPTIMIZERS}


def test_nothing_to_train_is_one_line() -> None:
    groups = parameter_groups(nn.Linear(1, 1).requires_grad_(False), 0.1, 0.1)
    with pytest.raises(InputError, match="^every parameter is frozen, so there is nothing to train$"):
        build_with(OPTIMIZERS.get("SGD"), groups, 0.9)
