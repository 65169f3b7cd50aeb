"""The average of the weights, worked by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine.training.ema import EMAHook, decay_of
from engine.training.loop import Step

STEP = Step(0, {}, torch.zeros(()), 0.0, 0.0, 0.0, [])


class One(nn.Module):
    """A weight, a statistic and a count."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.register_buffer("mean", torch.tensor(weight))
        self.register_buffer("count", torch.tensor(0))

    def become(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
        self.mean.fill_(value)
        self.count += 1


def test_average_by_hand() -> None:
    """Decays 1/11, then 2/12: 0 + 10/11 x 11 = 10, then 10 x 1/6 + 22 x 5/6 = 20; the initial weights count as one."""
    model = One(0.0)
    hook = EMAHook(model, 0.9)
    for value, expected in ((11.0, 10.0), (22.0, 20.0)):
        model.become(value)
        hook.after_step(STEP)
        assert hook.model.weight.item() == pytest.approx(expected) == hook.model.mean.item()
    assert hook.num_updates == 2 and hook.model.count == 2 and hook.model.count.dtype == torch.int64
    assert model.weight == 22 and model.weight.requires_grad and not hook.model.weight.requires_grad


def test_a_small_decay_is_never_exceeded() -> None:
    """0.9 is reached after 90 updates, a decay of 0.5 after 10."""
    model = One(0.0)
    hook = EMAHook(model, 0.5)
    hook.restore(model.state_dict(), 40)
    model.become(8.0)
    for expected in (4.0, 6.0, 7.0):
        hook.after_step(STEP)
        assert hook.model.weight.item() == expected


@given(st.integers(1, 10**6), st.floats(0.01, 0.9999))
def test_decay(update: int, decay: float) -> None:
    assert 0 < decay_of(update, decay) <= min(decay, decay_of(update + 1, decay))


def test_going_on_equals_going_through() -> None:
    def averaged(interrupted: bool) -> float:
        model = One(1.0)
        hook = EMAHook(model, 0.95)
        for value in (3.0, -2.0, 7.5, 4.25):
            model.become(value)
            hook.after_step(STEP)
            if interrupted:
                weights, updates = {k: v.clone() for k, v in hook.model.state_dict().items()}, hook.num_updates
                hook = EMAHook(model, 0.95)
                hook.restore(weights, updates)
        return hook.model.weight.item()

    assert averaged(interrupted=True) == averaged(interrupted=False)
