from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.config import get_cfg
from engine.errors import InputError
from engine.solver.build import build_schedule
from engine.solver.schedule import Schedule, cosine, multistep, warmup_factor

METHODS = ["constant", "linear", "linear_f0"]


def _optimizer(rates: list[float]) -> torch.optim.SGD:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "initial_lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=1.0)


@pytest.mark.parametrize("method", METHODS)
def test_golden(golden_dir: Path, method: str) -> None:
    case = json.loads((golden_dir / "atss" / "lr_schedule.json").read_text())[method]
    recorded, figures = case["lr_used_at_iteration_0_100"], case["config"]
    optimizer = _optimizer(case["base_lrs"])
    warmup = figures["warmup_method"], figures["warmup_factor"], figures["warmup_iters"]
    max_iter = len(recorded)
    schedule = Schedule(optimizer, multistep(figures["milestones"], figures["gamma"], max_iter), max_iter, *warmup)
    for iteration, expected in enumerate(recorded):
        schedule.set(iteration)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(expected, rel=1e-9), iteration


def test_a_milestone_takes_effect_at_its_iteration() -> None:
    schedule = Schedule(_optimizer([1.0]), multistep([3, 5], 0.1, 8), 8)
    assert [round(schedule.factor(i), 6) for i in range(8)] == [1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01]


def test_milestones_beyond_the_end_do_nothing() -> None:
    assert Schedule(_optimizer([1.0]), multistep([30000], 0.1, 8), 8).factor(7) == 1


def test_every_iteration_of_long_runs_lies_on_the_right_side() -> None:
    """Progress is a fraction; rounding must not move a milestone."""
    for max_iter, milestone in ((90000, 60000), (180000, 120001), (7, 3), (999983, 333331)):
        schedule = Schedule(_optimizer([1.0]), multistep([milestone], 0.1, max_iter), max_iter)
        assert schedule.factor(milestone - 1) == 1 and schedule.factor(milestone) == pytest.approx(0.1)


def test_cosine() -> None:
    schedule = Schedule(_optimizer([1.0]), cosine(), 4)
    assert [schedule.factor(i) for i in range(4)] == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)


@pytest.mark.parametrize(
    ("method", "factors"), [("linear", [0.5, 0.625, 0.75, 0.875, 1, 1]), ("constant", [0.5] * 4 + [1, 1])]
)
def test_warmup(method: str, factors: list[float]) -> None:
    assert [warmup_factor(i, method, 0.5, 4) for i in range(6)] == factors


def test_no_warmup() -> None:
    assert warmup_factor(0, "linear", 0.1, 0) == 1


@pytest.mark.parametrize("key", ["SCHEDULE", "WARMUP_METHOD"])
def test_an_unknown_name_is_one_line(key: str) -> None:
    cfg = get_cfg()
    cfg.IMPORTS = ("json",)  # with modules of the user's own any name may be right
    cfg.SOLVER[key] = "sometimes"
    with pytest.raises(InputError, match=f"SOLVER.{key} sometimes"):
        build_schedule(cfg, _optimizer([1.0]))
