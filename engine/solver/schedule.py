"""Learning rates as a pure function of the iteration, so that there is no state to save or to lose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)

WARMUPS = ("constant", "linear")


def multistep(milestones: Sequence[int], gamma: float, max_iter: int) -> ParamScheduler:
    """1, then a further factor `gamma` from each milestone (0-based iteration) on."""
    milestones = [step for step in milestones if step < max_iter]
    if not milestones:
        return ConstantParamScheduler(1.0)
    values = [gamma**k for k in range(len(milestones) + 1)]
    return MultiStepParamScheduler(values, num_updates=max_iter, milestones=milestones)


def cosine(final: float = 0.0) -> ParamScheduler:
    """From 1 to `final` along half a cosine (Loshchilov & Hutter, 2017)."""
    return CosineParamScheduler(1.0, final)


def warmup_factor(iteration: int, method: str, factor: float, num_iters: int) -> float:
    """Factor of the first `num_iters` iterations: `factor` ("constant"), or rising from it to 1 ("linear").

    Example:
        >>> [round(warmup_factor(i, "linear", 0.5, 2), 2) for i in range(3)]
        [0.5, 0.75, 1.0]
    """
    if iteration >= num_iters:
        return 1.0
    if method == "constant":
        return factor
    progress = iteration / num_iters
    return factor * (1 - progress) + progress


class Schedule:
    """Sets every group's rate to its "initial_lr" x the schedule's x the warm-up's factor.

    Args:
        optimizer: its groups carry "initial_lr".
        scheduler: factor as a function of progress in [0, 1].
        max_iter: iterations of the whole run.
        warmup_method, warmup_factor, warmup_iters: see `warmup_factor`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: ParamScheduler,
        max_iter: int,
        warmup_method: str = "linear",
        warmup_factor: float = 1.0,
        warmup_iters: int = 0,
    ) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.max_iter = max_iter
        self.warmup = (warmup_method, warmup_factor, warmup_iters)

    def factor(self, iteration: int) -> float:
        """Factor of the 0-based `iteration`."""
        return self.scheduler(iteration / self.max_iter) * warmup_factor(iteration, *self.warmup)

    def set(self, iteration: int) -> None:
        """Give the optimizer the rates of the 0-based `iteration`."""
        factor = self.factor(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
