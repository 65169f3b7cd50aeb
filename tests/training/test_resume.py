from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.errors import InputError
from engine.training.precision import Precision
from engine.training.resume import TrainingState, parameter_names


class Model(nn.Linear):
    def __init__(self, class_names: list[str]) -> None:
        super().__init__(2, 2)
        self.class_names = class_names


def _state(class_names: list[str]) -> tuple[Model, torch.optim.Optimizer, dict]:
    model = Model(class_names)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "class_names": class_names}
    return model, optimizer, state


def _training(model: Model, optimizer: torch.optim.Optimizer, name: str) -> TrainingState:
    return TrainingState(model, optimizer, name, Precision(torch.device("cpu")))


def test_weights_come_back_and_rates_stay_the_configurations() -> None:
    first, _, state = _state(["hole", "stain"])
    model, optimizer, _ = _state(["hole", "stain"])
    optimizer.param_groups[0]["lr"] = 0.5
    _training(model, optimizer, "SGD").restore(Path("a.pth"), state)
    assert torch.equal(model.weight, first.weight) and optimizer.param_groups[0]["lr"] == 0.5


def test_the_same_classes_in_another_order() -> None:
    """Their number is equal, so all shapes fit, but the labels would have the wrong meaning."""
    _, _, state = _state(["hole", "stain"])
    model, optimizer, _ = _state(["stain", "hole"])
    with pytest.raises(InputError, match="a.pth does not fit .* its classes are 'hole', 'stain', .* 'stain', 'hole';"):
        _training(model, optimizer, "SGD").restore(Path("a.pth"), state)


def test_another_optimizer() -> None:
    model, optimizer, state = _state([])
    state["optimizer_name"] = "AdamW"
    with pytest.raises(InputError, match="trained with SOLVER.OPTIMIZER AdamW, not SGD"):
        _training(model, optimizer, "SGD").restore(Path("a.pth"), state)


def test_moments_go_to_the_parameters_they_belong_to() -> None:
    """Groups in another order, or joined: parameters are resumed by name, groups come from the configuration."""

    def adam(*groups: str) -> tuple[Model, torch.optim.Optimizer]:
        model = Model([])
        named = dict(model.named_parameters())
        return model, torch.optim.AdamW([{"params": [named[name] for name in group.split()]} for group in groups])

    model, optimizer = adam("weight", "bias")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter) * parameter.numel()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter_names": parameter_names(model, optimizer),
        "class_names": [],
    }
    expected = {name: optimizer.state[parameter]["exp_avg"] for name, parameter in model.named_parameters()}
    for groups in (("bias", "weight"), ("bias weight",)):
        model, optimizer = adam(*groups)
        _training(model, optimizer, "AdamW").restore(Path("a.pth"), state)
        for name, parameter in model.named_parameters():
            assert torch.equal(optimizer.state[parameter]["exp_avg"], expected[name])

    state["parameter_names"] = ["weight", "scale"]
    with pytest.raises(InputError, match="trained other parameters: bias, scale"):
        _training(model, optimizer, "AdamW").restore(Path("a.pth"), state)


@pytest.mark.parametrize(
    "damage", [{"model": None}, {"optimizer": {}}, {"optimizer": {"state": 3, "param_groups": "x"}}, {"scaler": None}]
)
def test_a_state_of_another_form(damage: dict) -> None:
    model, optimizer, state = _state([])
    state.update(parameter_names=["weight", "bias"])
    if "scaler" in damage:
        state["hooks"], damage = {"Hook": 3}, {}
    training = _training(model, optimizer, "SGD")
    training.hooks.append(Hook())
    with pytest.raises(InputError, match="^a.pth does not fit this configuration: .*leave out --resume"):
        training.restore(Path("a.pth"), state | damage)


class Hook:
    def load_state_dict(self, state: dict) -> None:
        state["a"]
