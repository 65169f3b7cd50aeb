"""Ctrl-C and the signals of a scheduler: a checkpoint, then a documented exit code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from engine import distributed
from engine.checkpoint import Checkpointer
from engine.errors import Interrupted
from engine.training.loop import Hook, Step

SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1")
"""Ctrl-C; the notice before a job is killed; the same where a scheduler is told to send it (Slurm's --signal)."""


class InterruptHook(Hook):
    """After the step in which a signal reached any of the processes: saves a checkpoint and raises `Interrupted`.

    A second Ctrl-C does not wait for the step.

    Args:
        checkpointer: where the checkpoint goes.
        state: called with the number of iterations done, gives its content.
    """

    def __init__(self, checkpointer: Checkpointer, state: Callable[[int], dict[str, Any]]) -> None:
        self.checkpointer, self.state = checkpointer, state
        self.received = 0  # number of the signal
        self._previous: dict[int, object] = {}

    def before_train(self, start: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python hands signals to the main thread only; whoever trains in another one deals with them
        for name in SIGNALS:
            if number := getattr(signal, name, None):  # Windows has no SIGUSR1
                self._previous[number] = signal.signal(number, self._receive)

    def after_step(self, step: Step) -> None:
        number = distributed.largest(self.received)
        if not number:
            return
        done = step.iteration + 1
        name = f"model_{done:07d}"
        if distributed.is_main():
            self.checkpointer.save(name, self.state(done))
        distributed.barrier()
        if not distributed.is_main():
            raise Interrupted  # one process says it for all
        where = self.checkpointer.output_dir / f"{name}.pth"
        raise Interrupted(f"{signal.Signals(number).name} at iteration {done}: saved in {where}; go on with --resume")

    def after_train(self, iteration: int) -> None:
        number = distributed.largest(self.received)  # in the last validation or while it was saved
        if number and distributed.is_main():
            name = signal.Signals(number).name
            raise Interrupted(f"{name} after the last iteration, {iteration}, which is saved; test it with --resume")
        if number:
            raise Interrupted

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number  # and no word: the signal may have come in the middle of a print
