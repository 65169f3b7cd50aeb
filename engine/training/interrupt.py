"""Ctrl-C and the signals of a scheduler: save a checkpoint, then end with a documented exit code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from engine import distributed
from engine.checkpoint import Checkpointer
from engine.errors import SIGNALS, Interrupted
from engine.log import get_logger
from engine.training.loop import Hook, Step


class InterruptHook(Hook):
    """When a signal has reached any process: finishes the step, saves a checkpoint and raises `Interrupted`.

    A second Ctrl-C does not wait for the step to finish. `state` is called with the number of iterations done and
    returns the content of a checkpoint.
    """

    def __init__(self, checkpointer: Checkpointer, state: Callable[[int], dict[str, Any]]) -> None:
        self.checkpointer, self.state = checkpointer, state
        self.received = 0  # the signal number; 0 for none
        self._previous: dict[int, object] = {}

    def before_train(self, start: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only; a program that trains in another must handle them
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)

    def after_step(self, step: Step) -> None:
        if number := distributed.largest(self.received):
            done = step.iteration + 1
            path = self.checkpointer.output_dir / f"model_{done:07d}.pth"
            if distributed.is_main():
                self.checkpointer.save(path.stem, self.state(done))
            self._end(number, f"at iteration {done}: saved in {path}; continue with --resume")

    def after_train(self, iteration: int) -> None:
        if number := distributed.largest(self.received):  # during the last validation or while saving
            self._end(number, f"after the last iteration ({iteration}), which is saved; test it with --resume")

    def _end(self, number: int, what: str) -> None:
        """Log on all processes before any of them ends: a launcher that sees one end may kill the others."""
        get_logger(__name__).info("%s %s", signal.Signals(number).name, what)
        distributed.barrier()
        raise Interrupted

    def close(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number  # no log line here: the signal may have interrupted a print
