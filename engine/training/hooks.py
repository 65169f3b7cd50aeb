"""Hooks by name (`SOLVER.HOOKS`), and the hook that saves checkpoints."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine import distributed
from engine.checkpoint import Checkpointer
from engine.registry import Registry
from engine.training.loop import Hook, Step

FINAL = "model_final"

HOOKS = Registry("HOOKS")
"""Hooks for `SOLVER.HOOKS`: (run: Run) -> Hook."""


@dataclass(frozen=True)
class Run:
    """What a hook can read and change in its training."""

    model: nn.Module  # the detector, without the wrapper for several processes
    optimizer: torch.optim.Optimizer
    output_dir: Path  # exists
    max_iter: int  # iterations of the whole run
    changing: threading.RLock = field(default_factory=threading.RLock)
    """Held while the weights or the state of a hook change: whenever it is free, a checkpoint can be made."""


@dataclass(eq=False)
class CheckpointHook(Hook):
    """Saves `model_0002500.pth` etc. every `period` iterations and `model_final.pth` at the end, on the main process.

    With `is_final` training resumes from `model_final.pth`, which stays as it is, with thresholds, if no step follows.
    """

    run: Run
    checkpointer: Checkpointer
    state: Callable[[int], dict[str, Any]]  # called with the number of iterations done; the content of a checkpoint
    period: int  # 0 saves only the final checkpoint
    keep: int = 0  # how many numbered checkpoints to keep, the newest ones; 0 keeps all
    is_final: bool = False
    due: int = 0  # the iteration to save; 0 for none

    def after_step(self, step: Step) -> None:
        self.is_final = False
        done = step.iteration + 1
        self.due = done if self.period > 0 and done % self.period == 0 else 0

    def settle(self) -> None:
        if self.due and distributed.is_main():
            with self.run.changing:
                self.checkpointer.save(f"model_{self.due:07d}", self.state(self.due))
            if self.keep:
                self.checkpointer.prune(self.keep)
        self.due = 0

    def after_train(self, iteration: int) -> None:
        if distributed.is_main() and not self.is_final:
            with self.run.changing:
                self.checkpointer.save(FINAL, self.state(iteration))
