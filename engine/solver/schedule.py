"""Learning rate and momentum as a pure function of the iteration, so that there is no state to save or to lose."""

from __future__ import annotations

from typing import Any

import torch

from engine.errors import InputError
from engine.solver.courses import Course
from engine.solver.warmup import NO_WARMUP, Warmup


class Schedule:
    """Sets every group's rate to its "initial_lr" x the course's x the warm-up's factor, and its momentum.

    Args:
        optimizer: its groups carry "initial_lr", and the momentum that is to be where the rate is lowest.
        course: of the rate and, if `peak_momentum` is above 0, of momentum.
        max_iter: iterations of the whole run.
        warmup: of the rate.
        peak_momentum: momentum where the rate peaks; 0 leaves it alone.

    Raises:
        InputError: momentum is to follow, but course or optimizer has none, or too little to fall.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        course: Course,
        max_iter: int,
        warmup: Warmup = NO_WARMUP,
        peak_momentum: float = 0.0,
    ) -> None:
        self.optimizer = optimizer
        self.course = course
        self.max_iter = max_iter
        self.warmup = warmup
        self.peak_momentum = peak_momentum
        self.momenta = [momentum_of(group) for group in optimizer.param_groups]
        if peak_momentum > 0:
            _refuse_momentum(type(optimizer).__name__, course, self.momenta[0], peak_momentum)

    def factor(self, iteration: int) -> float:
        """Factor of the learning rates in the 0-based `iteration`."""
        return self.course.rate(iteration / self.max_iter) * self.warmup(iteration)

    def set(self, iteration: int) -> None:
        """Give the optimizer the rates and the momentum of the 0-based `iteration`."""
        factor = self.factor(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        if self.peak_momentum > 0:
            level = self.course.momentum(iteration / self.max_iter)
            for group, momentum in zip(self.optimizer.param_groups, self.momenta, strict=True):
                set_momentum(group, momentum + (self.peak_momentum - momentum) * level)


def momentum_of(group: dict[str, Any]) -> float | None:
    """Momentum of an optimizer's group, or the first beta of those like Adam; None: it has neither."""
    return group["betas"][0] if "betas" in group else group.get("momentum")


def set_momentum(group: dict[str, Any], momentum: float) -> None:
    """Make `momentum` what `momentum_of` gives; the group must have some."""
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


def _refuse_momentum(optimizer: str, course: Course, momentum: float | None, peak: float) -> None:
    key = f"SOLVER.CYCLE.PEAK_MOMENTUM is {peak:g}"
    if course.momentum is None:
        raise InputError(f"{key}, but the course of SOLVER.SCHEDULE has no momentum; write 0")
    if momentum is None:
        raise InputError(f"{key}, but {optimizer} has no momentum; write 0, or another SOLVER.OPTIMIZER")
    if momentum < peak:
        raise InputError(
            f"{key}, above the {momentum:g} of {optimizer} elsewhere: momentum falls where the rate peaks; "
            "write a lower one"
        )
