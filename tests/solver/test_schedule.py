from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from engine.assembly.solver import build_schedule, run_length
from engine.config import get_cfg
from engine.errors import InputError
from engine.solver.curves import ScheduleSettings, cosine, cyclic, multistep, one_cycle
from engine.solver.schedule import Schedule, momentum_of, set_momentum
from engine.solver.warmup import Warmup, constant, linear

ONE_FOR_ALL = get_cfg()  # shared by all examples of hypothesis; each sets all keys that it reads
METHODS = {"constant": constant, "linear": linear, "linear_f0": linear}


def _optimizer(rates: list[float], name: str = "SGD", **keys: float) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "initial_lr": rate} for rate in rates]
    return getattr(torch.optim, name)(groups, lr=1.0, **keys)


@pytest.mark.parametrize("method", METHODS)
def test_golden(golden_dir: Path, method: str) -> None:
    case = json.loads((golden_dir / "atss" / "lr_schedule.json").read_text())[method]
    recorded, figures = case["lr_used_at_iteration_0_100"], case["config"]
    optimizer = _optimizer(case["base_lrs"])
    warmup = Warmup(figures["warmup_iters"], figures["warmup_factor"], METHODS[method])
    settings = ScheduleSettings(len(recorded), figures["milestones"], figures["gamma"])
    schedule = Schedule(optimizer, multistep(settings), settings.max_iter, warmup)
    for iteration, expected in enumerate(recorded):
        schedule.set(iteration)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected, rel=1e-9), iteration


def test_rates_are_a_function_of_the_iteration_alone() -> None:
    optimizer = _optimizer([1.0, 2.0], momentum=0.9)
    schedule = Schedule(optimizer, one_cycle(ScheduleSettings(10)), 10, Warmup(3, 0.5), peak_momentum=0.8)
    figures = []
    for iteration in (*range(10), *reversed(range(10))):
        schedule.set(iteration)
        figures.append([(group["lr"], group["momentum"]) for group in optimizer.param_groups])
    assert figures[:10] == figures[:9:-1]
    assert len({str(each) for each in figures}) == 10


def test_warmup_times_curve() -> None:
    schedule = Schedule(_optimizer([1.0]), cosine(ScheduleSettings(4)), 4, Warmup(2, 0.5))
    assert [schedule.factor(i) for i in range(4)] == pytest.approx([0.5, 0.75 * 0.853553, 0.5, 0.146447], abs=1e-6)


@pytest.mark.parametrize(("name", "keys"), [("SGD", {"momentum": 0.9}), ("RMSprop", {"momentum": 0.9}), ("AdamW", {})])
def test_momentum_falls_where_the_rate_rises(name: str, keys: dict[str, float]) -> None:
    optimizer = _optimizer([1.0], name, **keys)
    schedule = Schedule(optimizer, cyclic(ScheduleSettings(8, num_cycles=2, start=0.0, rise=0.5)), 8, peak_momentum=0.7)
    figures = []
    for iteration in range(8):
        schedule.set(iteration)
        figures.append((optimizer.param_groups[0]["lr"], momentum_of(optimizer.param_groups[0])))
    rates, momenta = zip(*figures, strict=True)
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0, 0.5, 1, 0.5])
    assert momenta == pytest.approx([0.9, 0.8, 0.7, 0.8, 0.9, 0.8, 0.7, 0.8])


def test_momentum_is_left_alone() -> None:
    optimizer = _optimizer([1.0], momentum=0.9)
    Schedule(optimizer, one_cycle(ScheduleSettings(8)), 8).set(3)
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("group", [{"betas": (0.9, 0.99)}, {"betas": (0.9,)}, {"momentum": 0.9}])
def test_momentum_of_a_group(group: dict[str, object]) -> None:
    before = dict(group)
    set_momentum(group, 0.5)
    assert momentum_of(group) == 0.5
    set_momentum(group, momentum_of(before))
    assert group == before


@pytest.mark.parametrize(
    ("name", "keys", "curves", "message"),
    [
        ("SGD", {"momentum": 0.9}, cosine, "is 0.8, but SOLVER.SCHEDULE has no curve for momentum; write 0"),
        ("Adagrad", {}, one_cycle, "is 0.8, but Adagrad has no momentum; write 0, or choose another SOLVER.OPTIMIZER"),
        (
            "SGD",
            {"momentum": 0.7},
            one_cycle,
            r"is 0.8, above the momentum of SGD elsewhere \(0.7\); momentum must",
        ),
        ("RMSprop", {}, cyclic, r"is 0.8, above the momentum of RMSprop elsewhere \(0\)"),
    ],
)
def test_momentum_that_cannot_fall(name: str, keys: dict[str, float], curves: object, message: str) -> None:
    with pytest.raises(InputError, match=f"^SOLVER.CYCLE.PEAK_MOMENTUM {message}"):
        Schedule(_optimizer([1.0], name, **keys), curves(ScheduleSettings(8)), 8, peak_momentum=0.8)


@given(st.integers(1, 40), st.data())
def test_a_schedule_from_keys(max_iter: int, data: st.DataObject) -> None:
    """Every schedule and warm-up by name: rates stay between 0 and the largest factor, momenta between the two."""
    cfg = ONE_FOR_ALL
    name = data.draw(st.sampled_from(["multistep", "cosine", "poly", "cyclic", "one_cycle", "constant"]))
    cfg.SOLVER.SCHEDULE, cfg.SOLVER.MAX_ITER = name, max_iter
    cfg.SOLVER.WARMUP_METHOD = data.draw(st.sampled_from(["constant", "linear", "exponential"]))
    cfg.SOLVER.WARMUP_ITERS = data.draw(st.integers(0, 50))
    cfg.SOLVER.CYCLE.NUM, cfg.SOLVER.CYCLE.RISE = data.draw(st.integers(1, 5)), data.draw(st.floats(0, 1))
    cfg.SOLVER.CYCLE.PEAK_MOMENTUM = 0.85 if "cycl" in name else 0.0
    cfg.SOLVER.STEPS = (5, 9)
    optimizer = _optimizer([0.1], momentum=0.9)
    schedule = build_schedule(cfg, optimizer, run_length(cfg, num_images=7))
    for iteration in range(max_iter):
        schedule.set(iteration)
        group = optimizer.param_groups[0]
        assert 0 <= group["lr"] <= 0.1 + 1e-9 and 0.85 - 1e-9 <= group["momentum"] <= 0.9 + 1e-9


@pytest.mark.parametrize("key", ["SCHEDULE", "WARMUP_METHOD"])
def test_an_unknown_name_is_one_line(key: str) -> None:
    cfg = get_cfg()
    cfg.IMPORTS = ("json",)  # with modules of the user, any name may be registered
    cfg.SOLVER[key] = "linar"
    with pytest.raises(InputError, match=f"^SOLVER.{key}: nothing is registered as linar"):
        build_schedule(cfg, _optimizer([1.0]), run_length(cfg, num_images=1))
