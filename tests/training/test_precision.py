from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.training.precision import Clipping, Precision

CPU = torch.device("cpu")


def _step(precision: Precision, clip_norm: float = 0.0, clip_value: float = 0.0) -> tuple[nn.Linear, torch.Tensor]:
    """One step of SGD with rate 1 from weights 0, which become minus the gradient."""
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with precision.autocast():
        loss = model(torch.tensor([[3.0, 4.0]])).sum()
    precision.backward(loss.float())
    norm = precision.clip(optimizer, Clipping(clip_norm, clip_value))
    precision.step(optimizer)
    return model, norm


def _precision(dtype: torch.dtype | None) -> Precision:
    """With a loss scale that does not overflow float16 here; the initial one would."""
    precision = Precision(CPU, dtype)
    precision.load_state_dict({**precision.state_dict(), "scale": 8.0} if precision.state_dict() else {})
    return precision


def test_gradients_beyond_float16_skip_the_step_and_lower_the_scale() -> None:
    precision = Precision(CPU, torch.float16)
    before = precision.scaler.get_scale()
    model, _ = _step(precision)  # 65536 x 4 is more than float16 holds
    assert not model.weight.any() and precision.scaler.get_scale() == before / 2


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_step(dtype: torch.dtype | None) -> None:
    """The loss scale of float16 does not change the step."""
    model, norm = _step(_precision(dtype))
    assert model.weight.tolist() == [[-3.0, -4.0]] and norm == 5


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_clipping_sees_unscaled_gradients(dtype: torch.dtype | None) -> None:
    model, norm = _step(_precision(dtype), clip_norm=1.0)
    assert norm.item() == pytest.approx(5) and model.weight.flatten().tolist() == pytest.approx([-0.6, -0.8], abs=1e-4)
    model, norm = _step(_precision(dtype), clip_norm=10.0)
    assert norm.item() == pytest.approx(5) and model.weight.tolist() == [[-3.0, -4.0]]


def test_autocast_computes_in_the_type_asked_for() -> None:
    for dtype in (None, torch.bfloat16):
        with Precision(CPU, dtype).autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (dtype or torch.float32)


def test_state_of_the_loss_scale() -> None:
    first, second = Precision(CPU, torch.float16), Precision(CPU, torch.float16)
    _step(first)
    first.scaler.update(128.0)
    second.load_state_dict(first.state_dict())
    assert second.scaler.get_scale() == 128.0
    assert Precision(CPU).state_dict() == {}
    second.load_state_dict({})  # of a run without a scale: keep the current one
    assert second.scaler.get_scale() == 128.0


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_clipping_by_value_comes_before_clipping_by_norm(dtype: torch.dtype | None) -> None:
    """(3, 4) is cut to (3, 3.5), of norm 4.61, which 3 / 4.61 scales to (1.95, 2.28)."""
    model, norm = _step(_precision(dtype), clip_value=3.5)
    assert model.weight.tolist() == [[-3.0, -3.5]] and norm == 5
    model, norm = _step(_precision(dtype), clip_norm=3.0, clip_value=3.5)
    assert norm == 5  # before both
    assert model.weight.flatten().tolist() == pytest.approx([-9 / 21.25**0.5, -10.5 / 21.25**0.5], abs=1e-4)
