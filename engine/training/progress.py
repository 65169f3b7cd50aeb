"""Telling parts of a model how far their training is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from engine.training.hooks import Run
from engine.training.loop import Hook, Step


@runtime_checkable
class FollowsTraining(Protocol):
    """A module of a model that changes in the course of the training, such as a dense stage with phases.

    What it does must depend on these two numbers alone: then a resumed run and every process do the same, and nothing
    has to be stored.
    """

    def follow(self, iteration: int, max_iter: int) -> None:
        """The 0-based `iteration` of a run of `max_iter` comes next; called before the first one and after each."""
        ...


class ProgressHook(Hook):
    """Calls `follow` of all modules that have it."""

    def __init__(self, run: Run) -> None:
        self.max_iter = run.max_iter
        self.followers = [module for module in run.model.modules() if isinstance(module, FollowsTraining)]

    def before_train(self, start: int) -> None:
        for follower in self.followers:
            follower.follow(start, self.max_iter)

    def after_step(self, step: Step) -> None:
        for follower in self.followers:
            follower.follow(step.iteration + 1, self.max_iter)
