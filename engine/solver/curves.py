"""Curves of the learning rate and of momentum over a run, by name (`SOLVER.SCHEDULE`)."""

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
"""(settings: ScheduleSettings) -> Curves."""


@dataclass(frozen=True)
class ScheduleSettings:
    """What a curve may depend on; learning rates are relative to `SOLVER.BASE_LR`."""

    max_iter: int  # iterations of the run
    steps: Sequence[int] = ()  # milestones, 0-based iterations (`SOLVER.STEPS` or `STEPS_EPOCH`)
    gamma: float = 0.1  # `SOLVER.GAMMA`
    final: float = 0.0  # the rate at the end of the run (`SOLVER.FINAL_LR_FACTOR`)
    power: float = 0.9  # `SOLVER.POLY_POWER`
    num_cycles: int = 1  # `SOLVER.CYCLE.NUM`
    start: float = 0.1  # the rate at the beginning of a cycle (`SOLVER.CYCLE.START_FACTOR`)
    rise: float = 0.4  # the share of a cycle in which the rate rises (`SOLVER.CYCLE.RISE`)


@dataclass(frozen=True)
class Curves:
    """Functions of the progress in [0, 1): the 0-based iteration / `ScheduleSettings.max_iter`.

    `momentum` is 0 for the optimizer's own momentum and 1 for `SOLVER.CYCLE.PEAK_MOMENTUM`; None leaves momentum alone.
    """

    rate: Callable[[float], float]  # the factor of all learning rates
    momentum: Callable[[float], float] | None = None


class PiecewiseCurve(ParamScheduler):
    """A curve through given points that keeps its last value.

    fvcore's composite and multi-step schedulers switch up to a millionth of the run too early. This one switches
    exactly at its points, because `i / n` gives equal floats for equal fractions.

    Args:
        points: (progress, value) pairs that start at progress 0 and never go back. Where two points share a progress,
            the first ends the piece on the left and the second starts the piece on the right.
        between: (value, next value) -> the piece between two points, as a function of its own progress in [0, 1].

    Example:
        >>> saw = PiecewiseCurve([(0, 0), (0.5, 1), (0.5, 0), (1, 1)], LinearParamScheduler)
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
def constant(settings: ScheduleSettings) -> Curves:
    """Always 1."""
    return Curves(ConstantParamScheduler(1.0))


@SCHEDULES.register("multistep")
def multistep(settings: ScheduleSettings) -> Curves:
    """Starts at 1 and is multiplied by `gamma` at each of `steps`."""
    steps = [step / settings.max_iter for step in settings.steps if step < settings.max_iter]
    levels = [(step, settings.gamma**k) for k, step in enumerate((0.0, *steps))]
    # The point at 1.0 only ends the last piece; its value is never used.
    return Curves(PiecewiseCurve([*levels, (1.0, 0.0)], lambda level, _: ConstantParamScheduler(level)))


@SCHEDULES.register("cosine")
def cosine(settings: ScheduleSettings) -> Curves:
    """Half a cosine from 1 to `final` (Loshchilov & Hutter, 2017)."""
    return Curves(CosineParamScheduler(1.0, settings.final))


@SCHEDULES.register("poly")
def poly(settings: ScheduleSettings) -> Curves:
    """From 1 to `final`, proportional to the remaining part of the run raised to `power`."""
    decay = PolynomialDecayParamScheduler(1.0 - settings.final, settings.power)
    return Curves(lambda progress: settings.final + decay(progress))


@SCHEDULES.register("cyclic")
def cyclic(settings: ScheduleSettings) -> Curves:
    """`num_cycles` equal cycles, each a line from `start` to 1 and a line from 1 to `final` (Smith, 2017)."""
    count = settings.num_cycles
    marks = [(k / count, (k + settings.rise) / count, (k + 1) / count) for k in range(count)]
    return _cycles(marks, settings, LinearParamScheduler)


@SCHEDULES.register("one_cycle")
def one_cycle(settings: ScheduleSettings) -> Curves:
    """One cycle of two half cosines (Smith & Topin, 2019), equal to torch's `OneCycleLR`.

    As there, the peak is at iteration `rise * max_iter - 1`, and `final` is reached in the last iteration.
    """
    peak, end = max(settings.rise * settings.max_iter - 1, 0), max(settings.max_iter - 1, 1)
    return _cycles([(0.0, peak / settings.max_iter, end / settings.max_iter)], settings, CosineParamScheduler)


def _cycles(
    marks: Sequence[tuple[float, float, float]],
    settings: ScheduleSettings,
    between: Callable[[float, float], ParamScheduler],
) -> Curves:
    """The rates `start`, 1, `final` at each (beginning, peak, end), and the mirrored curve of momentum."""

    def through(first: float, last: float) -> ParamScheduler:
        points = [point for mark in marks for point in zip(mark, (first, 1.0, last), strict=True)]
        return PiecewiseCurve(points, between)

    return Curves(through(settings.start, settings.final), through(0.0, 0.0))
