"""Courses of the learning rate (and of momentum) over a run, by name (`SOLVER.SCHEDULE`)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
    PolynomialDecayParamScheduler,
)

from engine.registry import Registry

SCHEDULES = Registry("SCHEDULES")
"""(plan: Plan) -> Course."""


@dataclass(frozen=True)
class Plan:
    """What a course may depend on; learning rates are relative to `SOLVER.BASE_LR`.

    Attributes:
        max_iter: iterations of the run.
        steps: milestones, 0-based iterations (`SOLVER.STEPS` or `STEPS_EPOCH`).
        gamma: `SOLVER.GAMMA`.
        final: where the rate ends (`SOLVER.FINAL_LR_FACTOR`).
        power: `SOLVER.POLY_POWER`.
        num_cycles, start, rise: `SOLVER.CYCLE.NUM`, `START_FACTOR` and `RISE`.
    """

    max_iter: int
    steps: Sequence[int] = ()
    gamma: float = 0.1
    final: float = 0.0
    power: float = 0.9
    num_cycles: int = 1
    start: float = 0.1
    rise: float = 0.4


@dataclass(frozen=True)
class Course:
    """Functions of progress in [0, 1), which is the 0-based iteration / `Plan.max_iter`.

    Attributes:
        rate: factor of every learning rate.
        momentum: 0 where momentum is the optimizer's own, 1 where it is `SOLVER.CYCLE.PEAK_MOMENTUM`; None: it stays.
    """

    rate: Callable[[float], float]
    momentum: Callable[[float], float] | None = None


class Through(ParamScheduler):
    """The curve through points, and from the last one on its value.

    Unlike fvcore's composite and multi-step schedulers, which act up to a millionth of the run early, it turns exactly
    at its points: `i / n` are equal floats for equal fractions.

    Args:
        points: (progress, value), progress not decreasing and starting at 0. Of points at one place the first ends
            the piece before, the last begins the piece behind.
        between: (value, next value) -> what runs from one to the other over its own progress in [0, 1].

    Example:
        >>> saw = Through([(0, 0), (0.5, 1), (0.5, 0), (1, 1)], LinearParamScheduler)
        >>> [saw(progress) for progress in (0, 0.25, 0.5, 0.75)]
        [0.0, 0.5, 0.0, 0.5]
    """

    def __init__(
        self, points: Sequence[tuple[float, float]], between: Callable[[float, float], ParamScheduler]
    ) -> None:
        self.pieces = [
            (left, right, between(first, last)) for (left, first), (right, last) in pairwise(points) if left < right
        ]

    def __call__(self, where: float) -> float:
        left, right, piece = self.pieces[bisect_right(self.pieces, where, key=lambda piece: piece[0]) - 1]
        return piece((where - left) / (right - left))


@SCHEDULES.register("constant")
def constant(plan: Plan) -> Course:
    """1 throughout."""
    return Course(ConstantParamScheduler(1.0))


@SCHEDULES.register("multistep")
def multistep(plan: Plan) -> Course:
    """1, then a further factor `gamma` from each of `steps` on."""
    steps = [step / plan.max_iter for step in plan.steps if step < plan.max_iter]
    levels = [(step, plan.gamma**k) for k, step in enumerate((0.0, *steps))]
    return Course(Through([*levels, (1.0, 0.0)], lambda level, _: ConstantParamScheduler(level)))


@SCHEDULES.register("cosine")
def cosine(plan: Plan) -> Course:
    """From 1 to `final` along half a cosine (Loshchilov & Hutter, 2017)."""
    return Course(CosineParamScheduler(1.0, plan.final))


@SCHEDULES.register("poly")
def poly(plan: Plan) -> Course:
    """From 1 to `final` with the remaining part of the run, raised to `power`."""
    decay = PolynomialDecayParamScheduler(1.0 - plan.final, plan.power)
    return Course(lambda progress: plan.final + decay(progress))


@SCHEDULES.register("cyclic")
def cyclic(plan: Plan) -> Course:
    """`num_cycles` equal cycles of two lines each, `start` to 1 and 1 to `final` (Smith, 2017)."""
    count = plan.num_cycles
    marks = [(k / count, (k + plan.rise) / count, (k + 1) / count) for k in range(count)]
    return _cycles(marks, plan, LinearParamScheduler)


@SCHEDULES.register("one_cycle")
def one_cycle(plan: Plan) -> Course:
    """One cycle of two half cosines (Smith & Topin, 2019), with the figures of torch's `OneCycleLR`.

    As there, the peak is iteration `rise * max_iter - 1` and `final` is reached in the last iteration.
    """
    peak, end = max(plan.rise * plan.max_iter - 1, 0), max(plan.max_iter - 1, 1)
    return _cycles([(0.0, peak / plan.max_iter, end / plan.max_iter)], plan, CosineParamScheduler)


def _cycles(
    marks: Sequence[tuple[float, float, float]], plan: Plan, between: Callable[[float, float], ParamScheduler]
) -> Course:
    """Rates `start`, 1, `final` and the mirrored course of momentum through each (beginning, peak, end)."""

    def through(first: float, last: float) -> ParamScheduler:
        return Through([point for mark in marks for point in zip(mark, (first, 1.0, last), strict=True)], between)

    return Course(through(plan.start, plan.final), through(0.0, 0.0))
