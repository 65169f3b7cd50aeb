"""When a training validates, which checkpoint is the best, and when it ends."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.checkpoint import Checkpointer, io
from engine.training.hooks import Run
from engine.training.loop import Step, Stop
from engine.training.validation import ValidationHook, mean_figure, random_states_kept

NAN = math.nan


class World:
    """A hook on validations that give these figures one after the other, and what came of it."""

    def __init__(
        self, folder: Path, values: list[float], metric: str = "AP", period: Any = 1, patience: int = 0
    ) -> None:
        self.folder, self.values = folder, iter(values)
        self.records: list[dict[str, float]] = []
        self.metric = metric
        model = nn.Linear(1, 1)
        run = Run(model, torch.optim.SGD(model.parameters(), 0.1), folder, 9)
        self.hook = ValidationHook(
            run, self._validate, self.records.append, Checkpointer(folder), self._state, metric, period, 9, patience
        )

    def _validate(self) -> dict[str, Any]:
        torch.rand(3), np.random.rand(3), random.random()
        return {"val": {"figures": {self.metric: next(self.values), "APl": -1}, "thresholds": {"iou": 0.5}}}

    def _state(self, done: int) -> dict[str, Any]:
        return {"iteration": done, "thresholds": None, "hooks": {"ValidationHook": self.hook.state_dict()}}

    def train(self, start: int, stop: int) -> int:
        """Iterations done, up to `stop` of them."""
        done, self.hook.max_iter = start, stop
        try:
            self.hook.before_train(start)
            self.hook.settle()
            for iteration in range(start, stop):
                done = iteration + 1
                self.hook.after_step(Step(iteration, {}, torch.zeros(()), 0.1, 0.0, 0.0, []))
                self.hook.settle()
        except Stop:
            pass
        self.hook.after_train(done)
        return done

    @property
    def best(self) -> int | None:
        """Iterations done in the best checkpoint."""
        path = self.folder / "model_best.pth"
        return io.load(path)["iteration"] if path.exists() else None

    @property
    def validated(self) -> list[float]:
        return [record["iteration"] for record in self.records]


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (3, [3, 6, 7]),  # and at the end
        (7, [7]),  # once only
        (0, [7]),
        (9, [7]),
        (Fraction(5, 2), [3, 5, 7]),  # after 2.5 and 5 iterations; 7 is the end
        (Fraction(3, 4), [1, 2, 3, 4, 5, 6, 7]),  # more than one per step count as one
    ],
)
def test_when(tmp_path: Path, period: Any, expected: list[int]) -> None:
    world = World(tmp_path, [0.1] * 9, period=period)
    world.train(0, 7)
    assert world.validated == expected


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("AP", [0.1, 0.3, 0.2], 2),
        ("AP", [0.2, 0.2, 0.1], 1),  # the first among equal ones
        ("AP", [0.0, 0.0], 1),
        ("AP", [NAN, 0.1, NAN], 2),
        ("AP", [-1, 0.0, -1], 2),
        ("AP", [NAN, -1], None),
        ("loss", [3.0, 2.0, 2.5], 2),
        ("loss", [2.0, math.inf, NAN], 1),
        ("loss", [NAN, 5.0, 5.0], 2),
    ],
)
def test_best(tmp_path: Path, metric: str, values: list[float], best: int | None) -> None:
    world = World(tmp_path, values, metric)
    world.train(0, len(values))
    assert world.best == best
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert [value for record in world.records for value in record.values()] == pytest.approx(
        [x for i, v in enumerate(values) for x in ([i + 1] if v == -1 else [i + 1, v])], nan_ok=True
    )
    if best:
        content = io.load(tmp_path / "model_best.pth")
        assert content["thresholds"] == {"iou": 0.5} and content["hooks"]["ValidationHook"]["best_iteration"] == best


def test_a_last_validation_that_fails_does_not_cost_the_training(tmp_path: Path) -> None:
    with pytest.raises(StopIteration):
        World(tmp_path, [0.1]).train(0, 2)
    assert io.load(tmp_path / "model_final.pth")["iteration"] == 2
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_the_log_names_the_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("engine").propagate = True
    with caplog.at_level(logging.INFO, logger="engine"):
        World(tmp_path, [0.25, 0.125]).train(0, 2)
        World(tmp_path / "none", [-1]).train(0, 1)
    said = [record.getMessage() for record in caplog.records]
    assert "AP 0.2500, the best so far: model_best.pth" in said[0] and "val " in said[0]
    assert "AP 0.1250; the best is 0.2500 at iteration 1" in said[1]
    assert said[2] == f"best AP: 0.2500 at iteration 1, {tmp_path}/model_best.pth"
    assert "AP is undefined" in said[3] and "no validation had a value for AP, so there is no" in said[4]


@pytest.mark.parametrize(
    ("values", "patience", "done", "best"),
    [
        ([0.1, 0.2, 0.2, 0.1, 0.9], 2, 4, 2),
        ([0.1, 0.1, 0.2, 0.1, 0.3], 2, 5, 5),
        ([0.1, 0.1, 0.1, 0.1, 0.1], 0, 5, 1),
        ([NAN, NAN, 0.1, 0.1, 0.1], 2, 2, None),
    ],
)
def test_patience(tmp_path: Path, values: list[float], patience: int, done: int, best: int | None) -> None:
    world = World(tmp_path, values, patience=patience)
    assert world.train(0, 5) == done
    assert world.best == best and world.validated == list(range(1, done + 1))


def test_a_run_out_of_patience_stays_so_when_resumed(tmp_path: Path) -> None:
    first = World(tmp_path, [0.2, 0.1, 0.1], patience=2)
    assert first.train(0, 9) == 3
    again = World(tmp_path, [0.9], patience=2)
    again.hook.load_state_dict(first.hook.state_dict())
    assert again.train(3, 9) == 3 and not again.records
    more = World(tmp_path, [0.1, 0.3, 0.1, 0.1, 0.1], patience=4)  # continues with more patience
    more.hook.load_state_dict(first.hook.state_dict())
    assert more.train(3, 8) == 8 and more.best == 5


figures = st.sampled_from([0.1, 0.2, 0.3, 0.4, -1.0, NAN])


@settings(deadline=None, max_examples=30)  # checkpoints are synced to the disk
@given(st.lists(figures, min_size=1, max_size=8), st.integers(0, 8), st.integers(0, 4), st.sampled_from(["AP", "loss"]))
def test_resumed_equals_uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], cut: int, patience: int, metric: str
) -> None:
    cut = min(cut, len(values))
    whole = World(tmp_path_factory.mktemp("whole"), values, metric, patience=patience)
    done = whole.train(0, len(values))
    if cut >= done:
        return
    folder = tmp_path_factory.mktemp("parts")
    first = World(folder, values, metric, patience=patience)
    for iteration in range(cut):
        first.hook.after_step(Step(iteration, {}, torch.zeros(()), 0.1, 0.0, 0.0, []))
        first.hook.settle()
    second = World(folder, values[cut:], metric, patience=patience)
    second.hook.load_state_dict(first.hook.state_dict())
    assert second.train(cut, len(values)) == done
    assert second.hook.state_dict() == whole.hook.state_dict() and second.best == whole.best
    assert str(first.records + second.records) == str(whole.records)  # as text, NaN equals itself


def test_another_metric_after_a_resume(tmp_path: Path) -> None:
    first = World(tmp_path, [0.9])
    first.train(0, 1)
    second = World(tmp_path, [7.0], "loss")
    second.hook.load_state_dict(first.hook.state_dict())
    second.train(1, 2)
    assert second.best == 2


def test_chance_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    def drawn() -> list[Any]:
        return [torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()]

    world = World(tmp_path, [0.1])
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = drawn()
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    world.train(0, 1)
    assert drawn() == expected
    random.setstate(states[0]), np.random.set_state(states[1]), torch.set_rng_state(states[2])
    with pytest.raises(ZeroDivisionError), random_states_kept():
        drawn()
        raise ZeroDivisionError
    assert drawn() == expected


@pytest.fixture
def rows() -> Iterator[list[dict[str, float]]]:
    yield [{"AP": 0.25, "APl": -1.0, "loss": 2.0}, {"AP": 0.5, "APl": 0.75, "loss": NAN}, {"AP": 0.0, "APl": -1.0}]


@pytest.mark.parametrize(("metric", "expected"), [("AP", 0.25), ("APl", 0.75), ("loss", None), ("AR1", None)])
def test_mean_over_data_sets(rows: list[dict[str, float]], metric: str, expected: float | None) -> None:
    assert mean_figure(metric, rows) == expected


def test_one_data_set_that_gave_nothing_spoils_the_mean() -> None:
    assert mean_figure("AP", [{"AP": 0.25}, {}]) is None


def test_a_validation_that_was_due_comes_first_in_the_resumed_run(tmp_path: Path) -> None:
    """A signal ended the run in the middle of it."""
    whole = World(tmp_path / "whole", [0.1, 0.4, 0.3])
    whole.train(0, 3)
    first = World(tmp_path / "parts", [0.1])
    for iteration in range(2):
        first.hook.after_step(Step(iteration, {}, torch.zeros(()), 0.1, 0.0, 0.0, []))
        if iteration == 0:
            first.hook.settle()
    state = first.hook.state_dict()
    second = World(tmp_path / "parts", [0.4, 0.3])
    second.hook.load_state_dict(state)
    second.train(2, 3)
    assert first.records + second.records == whole.records and second.best == whole.best == 2
    assert second.hook.state_dict() == whole.hook.state_dict()
