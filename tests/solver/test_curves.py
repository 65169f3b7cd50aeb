"""Curves against tables worked by hand, torch's schedulers and what their definitions promise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from engine.solver.curves import (
    SCHEDULES,
    Curves,
    PiecewiseCurve,
    ScheduleSettings,
    constant,
    cosine,
    cyclic,
    multistep,
    one_cycle,
    poly,
)

N = 40

SETTINGS = st.builds(
    ScheduleSettings,
    max_iter=st.integers(1, 300),
    steps=st.lists(st.integers(0, 300), max_size=4).map(sorted),
    gamma=st.floats(0, 1),
    final=st.floats(0, 1),
    power=st.floats(0, 4),
    num_cycles=st.integers(1, 6),
    start=st.floats(0, 1),
    rise=st.floats(0, 1),
)
NAMES = ("multistep", "cosine", "poly", "cyclic", "one_cycle", "constant")


def _rates(curves: Curves, max_iter: int) -> list[float]:
    return [curves.rate(iteration / max_iter) for iteration in range(max_iter)]


def _momenta(curves: Curves, max_iter: int) -> list[float]:
    return [curves.momentum(iteration / max_iter) for iteration in range(max_iter)]


def _of_torch(scheduler: type, num_iters: int, **keys: object) -> tuple[list[float], list[float]]:
    """Rates and momenta of each iteration, for a rate of 1 and a momentum of 0.9."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule, figures = scheduler(optimizer, **keys), []
    for iteration in range(num_iters):
        figures.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        if iteration < num_iters - 1:
            schedule.step()
    rates, momenta = zip(*figures, strict=True)
    return list(rates), list(momenta)


def test_a_milestone_takes_effect_at_its_iteration() -> None:
    curves = multistep(ScheduleSettings(8, [3, 5]))
    assert _rates(curves, 8) == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01])


@pytest.mark.parametrize(
    ("steps", "rates"), [([30000], [1, 1, 1]), ([0], [0.1] * 3), ([1, 1, 2], [1, 0.01, 0.001]), ([3], [1, 1, 1])]
)
def test_milestones_at_the_ends_and_together(steps: list[int], rates: list[float]) -> None:
    assert _rates(multistep(ScheduleSettings(3, steps)), 3) == pytest.approx(rates)


@pytest.mark.parametrize(
    ("max_iter", "milestone"), [(90000, 60000), (180000, 120001), (7, 3), (999983, 333331), (7_000_003, 2_000_001)]
)
def test_every_iteration_of_long_runs_lies_on_the_right_side(max_iter: int, milestone: int) -> None:
    """Progress is a fraction; rounding must not move a milestone."""
    curves = multistep(ScheduleSettings(max_iter, [milestone]))
    assert curves.rate((milestone - 1) / max_iter) == 1
    assert curves.rate(milestone / max_iter) == pytest.approx(0.1)


def test_cosine() -> None:
    assert _rates(cosine(ScheduleSettings(4)), 4) == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)


@pytest.mark.parametrize("final", [0.0, 0.05])
def test_cosine_is_torchs(final: float) -> None:
    expected, _ = _of_torch(lr_scheduler.CosineAnnealingLR, N, T_max=N, eta_min=final)
    assert _rates(cosine(ScheduleSettings(N, final=final)), N) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("power", [0.9, 1.0, 2.0])
def test_poly_is_torchs(power: float) -> None:
    expected, _ = _of_torch(lr_scheduler.PolynomialLR, N, total_iters=N, power=power)
    assert _rates(poly(ScheduleSettings(N, power=power)), N) == pytest.approx(expected, abs=1e-6)


def test_poly_with_an_end() -> None:
    assert _rates(poly(ScheduleSettings(4, final=0.2, power=1)), 4) == pytest.approx([1, 0.8, 0.6, 0.4])


@pytest.mark.parametrize("rise", [0.3, 0.25, 0.5, 0.85, 1.0])
@pytest.mark.parametrize("num_iters", [10, 37, N])
def test_one_cycle_is_torchs(num_iters: int, rise: float) -> None:
    keys = {"total_steps": num_iters, "pct_start": rise, "div_factor": 25, "final_div_factor": 40}
    keys |= {"base_momentum": 0.8, "max_momentum": 0.9}
    rates, momenta = _of_torch(lr_scheduler.OneCycleLR, num_iters, max_lr=1.0, **keys)
    curves = one_cycle(ScheduleSettings(num_iters, start=1 / 25, final=1 / 1000, rise=rise))
    assert _rates(curves, num_iters) == pytest.approx(rates, abs=1e-6)
    assert [0.9 - 0.1 * level for level in _momenta(curves, num_iters)] == pytest.approx(momenta, abs=1e-6)


@pytest.mark.parametrize("rise", [0.25, 0.5])
def test_cyclic_is_torchs(rise: float) -> None:
    up = round(rise * N / 2)  # of two cycles
    keys = {"base_lr": 0.1, "max_lr": 1.0, "step_size_up": up, "step_size_down": N // 2 - up}
    rates, momenta = _of_torch(lr_scheduler.CyclicLR, N, **keys, base_momentum=0.8, max_momentum=0.9)
    curves = cyclic(ScheduleSettings(N, num_cycles=2, start=0.1, final=0.1, rise=rise))
    assert _rates(curves, N) == pytest.approx(rates, abs=1e-6)
    assert [0.9 - 0.1 * level for level in _momenta(curves, N)] == pytest.approx(momenta, abs=1e-6)


def test_a_new_cycle_begins_at_its_start() -> None:
    curves = cyclic(ScheduleSettings(8, num_cycles=2, start=0.5, final=0.0, rise=0.5))
    assert _rates(curves, 8) == pytest.approx([0.5, 0.75, 1, 0.5, 0.5, 0.75, 1, 0.5])
    assert _momenta(curves, 8) == pytest.approx([0, 0.5, 1, 0.5, 0, 0.5, 1, 0.5])


@pytest.mark.parametrize(("rise", "rates"), [(0.0, [1, 0.75, 0.5, 0.25]), (1.0, [0.2, 0.4, 0.6, 0.8])])
def test_cycles_that_only_rise_or_fall(rise: float, rates: list[float]) -> None:
    assert _rates(cyclic(ScheduleSettings(4, start=0.2, final=0.0, rise=rise)), 4) == pytest.approx(rates)


def test_runs_of_one_and_two_iterations() -> None:
    assert _rates(one_cycle(ScheduleSettings(1)), 1) == [1]
    assert _rates(one_cycle(ScheduleSettings(2, final=0.1)), 2) == pytest.approx([1, 0.1])


def test_constant() -> None:
    assert _rates(constant(ScheduleSettings(3)), 3) == [1, 1, 1]


@given(SETTINGS, st.sampled_from(NAMES))
def test_factors_stay_between_their_ends(settings: ScheduleSettings, name: str) -> None:
    curves = SCHEDULES.get(name)(settings)
    rates = _rates(curves, settings.max_iter)
    lowest = {"constant": 1, "multistep": 0, "cosine": settings.final, "poly": settings.final}
    assert min(rates) >= lowest.get(name, min(settings.start, settings.final)) - 1e-9 and max(rates) <= 1 + 1e-9
    if curves.momentum is None:
        assert "cycl" not in name
    else:
        assert all(-1e-9 <= level <= 1 + 1e-9 for level in _momenta(curves, settings.max_iter))


@given(SETTINGS, st.sampled_from(NAMES))
def test_ends(settings: ScheduleSettings, name: str) -> None:
    curves, max_iter = SCHEDULES.get(name)(settings), settings.max_iter
    almost_done = 1 - 1e-12
    if name in ("cosine", "poly") and settings.power > 0.5:
        assert curves.rate(0.0) == pytest.approx(1)
        assert curves.rate(almost_done) == pytest.approx(settings.final, abs=1e-5)
    elif name == "cyclic" and 0.01 < settings.rise < 0.99:
        assert curves.rate(0.0) == pytest.approx(settings.start)
        assert curves.rate(almost_done) == pytest.approx(settings.final, abs=1e-5)
    elif name == "one_cycle" and max_iter > 1 and 1 < settings.rise * max_iter < max_iter - 1:
        assert curves.rate(0.0) == pytest.approx(settings.start)
        assert curves.rate((max_iter - 1) / max_iter) == pytest.approx(settings.final)
    elif name in ("multistep", "constant"):
        num_begun = sum(step < settings.max_iter for step in settings.steps) if name == "multistep" else 0
        assert curves.rate((settings.max_iter - 1) / settings.max_iter) == pytest.approx(settings.gamma**num_begun)


@given(SETTINGS, st.sampled_from(["cyclic", "one_cycle"]))
def test_momentum_mirrors_the_rate(settings: ScheduleSettings, name: str) -> None:
    """If both ends are equal, the level of momentum is the relative position of the rate between them and 1."""
    settings = replace(settings, start=0.25, final=0.25)
    curves = SCHEDULES.get(name)(settings)
    levels = [(rate - 0.25) / 0.75 for rate in _rates(curves, settings.max_iter)]
    assert _momenta(curves, settings.max_iter) == pytest.approx(levels, abs=1e-6)


@given(st.integers(2, 3_000_000), st.data())
def test_a_curve_turns_exactly_at_its_points(denominator: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(1, denominator - 1))
    times = data.draw(st.integers(1, 50))
    saw = PiecewiseCurve(
        [(0.0, 0.0), (place / denominator, 1.0), (place / denominator, 5.0), (1.0, 5.0)], LinearParamScheduler
    )
    assert saw(place * times / (denominator * times)) == 5
    assert saw((place * times - 1) / (denominator * times)) < 1
