from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from engine.training.hooks import Run
from engine.training.loop import Step
from engine.training.progress import ProgressHook


class Following(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, int]] = []

    def follow(self, iteration: int, max_iter: int) -> None:
        self.told.append((iteration, max_iter))


def test_parts_are_told_the_iteration_that_comes_next() -> None:
    part = Following()
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(part))
    hook = ProgressHook(Run(model, torch.optim.SGD(model.parameters(), 0.1), Path(), max_iter=9))
    hook.before_train(4)
    for iteration in (4, 5):
        hook.after_step(Step(iteration, {}, torch.ones(()), 0.1, 0.0, 0.0, []))
    assert part.told == [(4, 9), (5, 9), (6, 9)]
    assert hook.state_dict() == {}  # a resumed run is told the same
