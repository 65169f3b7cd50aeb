"""Validation during training: figures for the log, the best checkpoint, early stopping."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from engine import distributed
from engine.checkpoint import Checkpointer
from engine.evaluation.tables import validation_table
from engine.log import get_logger
from engine.training.hooks import FINAL, Run
from engine.training.loop import Hook, Step, Stop

BEST = "model_best"
LOSS = "loss"
"""The only metric where less is better."""
UNDEFINED = -1
"""The value of a figure without ground truth of its kind, as in `metrics.json`."""


@dataclass(eq=False)
class ValidationHook(Hook):
    """Validates every `period` iterations and at the end, and keeps the best checkpoint as `model_best.pth`.

    Among equal ones the first is the best. Validation does not change the random numbers of the training. The last one
    may fail, so `model_final.pth` is written before it, and again after it by `CheckpointHook`.

    Attributes:
        validate: called on all processes, evaluates the current weights; returns {data set: {"figures", "thresholds"}},
            see `assembly.testing.Validation`.
        write: called on the main process with a log record: "iteration" and each defined figure as "NAME/FIGURE".
        state: called with the number of iterations done, returns the content of a checkpoint; the thresholds of the
            first data set are added to it.
        metric: the figure to compare, as its mean over the data sets: "loss", where less is better, or any other.
        period: iterations between two validations; fractions are rounded up each time. 0 validates only at the end.
        patience: training ends after this many validations in a row without improvement; 0 never ends it.
    """

    run: Run
    validate: Callable[[], Mapping[str, Mapping[str, Any]]] | None
    write: Callable[[dict[str, float]], None]
    checkpointer: Checkpointer
    state: Callable[[int], dict[str, Any]]
    metric: str
    period: Fraction | int
    max_iter: int
    patience: int = 0

    def __post_init__(self) -> None:
        self.logger = get_logger(__name__)
        self.best: float | None = None
        self.best_iteration = 0
        self.num_since = 0  # validations since the best one
        self.last = -1  # iterations done at the last validation
        self.due = 0  # the iteration to validate, if there is one

    def before_train(self, start: int) -> None:
        self._stop_without_improvement()  # the run to resume may have ended like this

    def after_step(self, step: Step) -> None:
        done = step.iteration + 1
        # A new multiple of the period was reached, which may be a fraction. The last validation is in `after_train`.
        if done < self.max_iter and self.period and done // self.period > (done - 1) // self.period:
            self.due = done

    def settle(self) -> None:
        if self.due:
            self._validate(self.due)
            self._stop_without_improvement()

    def after_train(self, iteration: int) -> None:
        if self.last != iteration:
            if distributed.is_main():
                with self.run.changing:
                    self.checkpointer.save(FINAL, self.state(iteration))
            self._validate(iteration)
        if self.best is None:
            self.logger.warning("no validation had a value for %s, so there is no %s.pth", self.metric, BEST)
        else:
            where = self.checkpointer.output_dir / f"{BEST}.pth"
            self.logger.info("best %s: %.4f at iteration %d, %s", self.metric, self.best, self.best_iteration, where)

    def close(self) -> None:
        self.validate = None  # also ends its loader workers

    def state_dict(self) -> dict[str, Any]:
        names = ("metric", "best", "best_iteration", "num_since", "last", "due")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`; with another metric, the search for the best checkpoint starts again."""
        self.last, self.due = state["last"], state.get("due", 0)
        if state["metric"] != self.metric:
            message = "the metric changed from %s to %s: the search for the best model starts again"
            self.logger.warning(message, state["metric"], self.metric)
            return
        self.best, self.best_iteration, self.num_since = (state[k] for k in ("best", "best_iteration", "num_since"))

    def _stop_without_improvement(self) -> None:
        if 0 < self.patience <= self.num_since:
            than = "" if self.best is None else f" than {self.best:.4f} at iteration {self.best_iteration}"
            raise Stop(
                f"{self.num_since} validations without a better {self.metric}{than} (SOLVER.VALIDATION.PATIENCE)"
            )

    def _validate(self, done: int) -> None:
        began = time.perf_counter()
        with random_states_kept():
            outcomes = self.validate()
        with self.run.changing:  # a checkpoint is of the moment before or after the validation
            self._take(done, outcomes, time.perf_counter() - began)

    def _take(self, done: int, outcomes: Mapping[str, Mapping[str, Any]], seconds: float) -> None:
        self.last, self.due = done, 0
        figures = {name: outcome["figures"] for name, outcome in outcomes.items()}
        verdict = self._judge(done, mean_figure(self.metric, list(figures.values())))
        if not distributed.is_main():
            return
        defined = {f"{name}/{k}": v for name, row in figures.items() for k, v in row.items() if v != UNDEFINED}
        self.write({"iteration": done} | defined)
        table = validation_table(figures, self.metric)
        self.logger.info("validation at iteration %d took %.1f s\n%s\n%s", done, seconds, table, verdict)
        if self.num_since == 0 and self.best_iteration == done:
            thresholds = next(iter(outcomes.values()))["thresholds"]
            self.checkpointer.save(BEST, {**self.state(done), "thresholds": thresholds}, is_last=False)

    def _judge(self, done: int, value: float | None) -> str:
        """Compare the `value` of this validation with the best one; returns a sentence about it."""
        is_better = value is not None and (
            self.best is None or (value < self.best if self.metric == LOSS else value > self.best)
        )
        if is_better:
            self.best, self.best_iteration, self.num_since = value, done, 0
            return f"{self.metric} {value:.4f}, the best so far: {BEST}.pth"
        self.num_since += 1
        text = f"{self.metric} is undefined" if value is None else f"{self.metric} {value:.4f}"
        return text if self.best is None else f"{text}; the best is {self.best:.4f} at iteration {self.best_iteration}"


def mean_figure(metric: str, figures: Sequence[Mapping[str, float]]) -> float | None:
    """The mean of a figure over data sets; None if one of them lacks it or it is not finite.

    Data sets in which it is undefined (-1: no ground truth of this kind) are left out.

    Example:
        >>> mean_figure("AP", [{"AP": 0.25}, {"AP": 0.75}, {"AP": -1}])
        0.5
    """
    values = [row.get(metric, math.nan) for row in figures]
    defined = [value for value in values if value != UNDEFINED]
    mean = sum(defined) / len(defined) if defined else math.nan
    return mean if math.isfinite(mean) else None


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the random states of Python, numpy and torch after the block."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
