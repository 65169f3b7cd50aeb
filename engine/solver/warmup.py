"""The first iterations of a run, by name (`SOLVER.WARMUP_METHOD`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.registry import Registry

WARMUPS = Registry("WARMUPS")
"""(progress in [0, 1), factor: float) -> factor of the learning rate.

`progress` is the 0-based iteration / `SOLVER.WARMUP_ITERS`, `factor` is `SOLVER.WARMUP_FACTOR`.
"""


@WARMUPS.register("constant")
def constant(progress: float, factor: float) -> float:
    """Always `factor` (He et al., 2016)."""
    return factor


@WARMUPS.register("linear")
def linear(progress: float, factor: float) -> float:
    """A line from `factor` to 1 (Goyal et al., 2017)."""
    return factor * (1 - progress) + progress


@WARMUPS.register("exponential")
def exponential(progress: float, factor: float) -> float:
    """From `factor`, which must be above 0, to 1, multiplied by the same ratio in each iteration."""
    return factor ** (1 - progress)


@dataclass(frozen=True)
class Warmup:
    """The factor of the learning rate in a 0-based iteration.

    Example:
        >>> [Warmup(2, 0.5, linear)(iteration) for iteration in range(3)]
        [0.5, 0.75, 1.0]
    """

    num_iters: int = 0  # length of the warm-up; the factor is 1.0 afterwards
    factor: float = 1.0  # its start value
    curve: Callable[[float, float], float] = linear  # see `WARMUPS`

    def __call__(self, iteration: int) -> float:
        return self.curve(iteration / self.num_iters, self.factor) if iteration < self.num_iters else 1.0
