"""Learning rate and momentum as pure functions of the iteration, so there is no state to save or lose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from engine.errors import InputError
from engine.solver.curves import Curves
from engine.solver.warmup import Warmup


@dataclass(eq=False)
class Schedule:
    """Sets the learning rate of each group to "initial_lr" x the curve x the warm-up, and its momentum.

    Raises:
        InputError: `peak_momentum` is set, but the curves or the optimizer have no momentum, or less than that.
    """

    optimizer: torch.optim.Optimizer  # its groups have "initial_lr", and the momentum for the lowest learning rate
    curves: Curves  # with one of momentum, if `peak_momentum` is above 0
    max_iter: int  # iterations of the whole run
    warmup: Warmup = Warmup()
    peak_momentum: float = 0.0  # momentum at the peak of the learning rate; 0 leaves momentum alone

    def __post_init__(self) -> None:
        self.momenta = [momentum_of(group) for group in self.optimizer.param_groups]
        if self.peak_momentum > 0:
            _check_momentum(type(self.optimizer).__name__, self.curves, self.momenta[0], self.peak_momentum)

    def factor(self, iteration: int) -> float:
        """The factor of the learning rates in the 0-based `iteration`."""
        return self.curves.rate(iteration / self.max_iter) * self.warmup(iteration)

    def set(self, iteration: int) -> None:
        """Give the optimizer the learning rates and momentum of the 0-based `iteration`."""
        factor = self.factor(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        if self.peak_momentum > 0:
            level = self.curves.momentum(iteration / self.max_iter)
            for group, momentum in zip(self.optimizer.param_groups, self.momenta, strict=True):
                set_momentum(group, momentum + (self.peak_momentum - momentum) * level)


def momentum_of(group: dict[str, Any]) -> float | None:
    """The momentum of a parameter group, or the first beta of Adam and its relatives; None if it has neither."""
    return group["betas"][0] if "betas" in group else group.get("momentum")


def set_momentum(group: dict[str, Any], momentum: float) -> None:
    """The inverse of `momentum_of`, for a group that has momentum or betas."""
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


def _check_momentum(optimizer: str, curves: Curves, momentum: float | None, peak: float) -> None:
    key = f"SOLVER.CYCLE.PEAK_MOMENTUM is {peak:g}"
    if curves.momentum is None:
        raise InputError(f"{key}, but SOLVER.SCHEDULE has no curve for momentum; write 0")
    if momentum is None:
        raise InputError(f"{key}, but {optimizer} has no momentum; write 0, or choose another SOLVER.OPTIMIZER")
    if momentum < peak:
        raise InputError(
            f"{key}, above the momentum of {optimizer} elsewhere ({momentum:g}); momentum must fall where the learning "
            "rate peaks, so write a lower value"
        )
