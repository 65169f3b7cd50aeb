"""Ctrl-C and the signals of a scheduler: save a checkpoint, then end with a documented exit code."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from engine import distributed
from engine.checkpoint import Checkpointer
from engine.errors import EXIT_INTERRUPTED, EXIT_SAVED, SIGNALS, Interrupted
from engine.log import get_logger
from engine.signals import Answer, current_watch
from engine.training.hooks import Run
from engine.training.loop import Hook, Step

PATIENCE_SECONDS = 1.5
"""How long a signal waits for the step to finish; then the state after the step before it is saved."""
CLOSING_SECONDS = 10.0
"""How long the writers of the log and the other processes may take to end once the checkpoint is saved."""


SECONDS_PER_LOOK = 0.25
"""How often a process looks whether another one has left a note."""


class InterruptHook(Hook):
    """When a signal has reached any process: saves a checkpoint and ends all of them.

    After a step it raises `Interrupted`. In a command (see `SignalWatch`) that does not finish its step soon, since it
    waits for images or for another process, validates or computes for long, a thread saves the state after the last
    finished step and ends the process. In other programs a second Ctrl-C does not wait for the step to finish.

    `state` is called with the number of iterations done and the buffers of the model as they were then, which a forward
    pass may have changed since; it returns the content of a checkpoint.
    """

    def __init__(
        self, run: Run, checkpointer: Checkpointer, state: Callable[[int, Mapping[str, Tensor]], dict[str, Any]]
    ) -> None:
        self.run, self.checkpointer, self.state = run, checkpointer, state
        self.received = 0  # the signal number; 0 for none
        self.done = 0  # iterations
        self.saved_at: int | None = None  # iterations done at the checkpoint of the signal
        self._stored = run.model.state_dict().keys()
        self._kept: dict[str, Tensor] = {}  # the stored buffers after the last finished step
        self._complete: torch.cuda.Event | None = None  # on a GPU: when it was finished
        self._previous: dict[int, object] = {}
        self._watch = None
        self._notes: distributed.Notes | None = None
        self._closed = threading.Event()
        self._is_leaving = False  # a thread saves and then ends the process

    def before_train(self, start: int) -> None:
        self._note_done(start)
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals to the main thread only; a program that trains in another must handle them
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)
        self._watch = current_watch()
        if self._watch:
            self._previous_answer = self._watch.answer
            self._watch.answer = Answer(self._end_without_main_thread, PATIENCE_SECONDS, self._hear)
            self._notes = distributed.shared_notes()
            if self._notes:
                threading.Thread(target=self._exchange_signals, daemon=True).start()

    def before_update(self) -> None:
        self.run.changing.acquire()

    def after_step(self, step: Step) -> None:
        self._note_done(step.iteration + 1)
        self.run.changing.release()

    def settle(self) -> None:
        if number := distributed.largest(self.received):
            if distributed.is_main():
                with self.run.changing:  # the thread of the watch may want to save too
                    self._save()
            self._end(number, self._where())

    def after_train(self, iteration: int) -> None:
        if number := distributed.largest(self.received):  # during the last validation or while saving
            self.saved_at = iteration
            self._end(number, f"after the last iteration ({iteration}), which is saved; test it with --resume")

    def close(self) -> None:
        self._closed.set()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._watch:
            self._watch.answer = Answer(self._close_in_time) if self.received else self._previous_answer
        if self._is_leaving and sys.exc_info()[0]:
            # Another process of the run ended sooner; its loss is no error, and the thread has the last word.
            time.sleep(CLOSING_SECONDS)

    # ---------------------------------------------------------------- in the main thread

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT and not self._watch:
            raise KeyboardInterrupt
        self.received = number  # no log line here: the signal may have interrupted a print

    def _note_done(self, done: int) -> None:
        buffers = {name: buffer for name, buffer in self.run.model.named_buffers() if name in self._stored}
        if buffers.keys() != self._kept.keys():
            self._kept = {name: buffer.clone() for name, buffer in buffers.items()}
        elif buffers:
            torch._foreach_copy_(list(self._kept.values()), list(buffers.values()))
        self.done = done
        if torch.cuda.is_initialized():
            self._complete = torch.cuda.Event()
            self._complete.record()

    def _end(self, number: int, what: str) -> None:
        """Log on all processes before any of them ends: a launcher that sees one end may kill the others."""
        get_logger(__name__).info("%s %s", signal.Signals(number).name, what)
        distributed.barrier()
        raise Interrupted

    # ---------------------------------------------------------------- in any thread

    def _save(self) -> None:
        """Save the state after the last finished step, unless this or another process does; needs `changing`."""
        if self.saved_at is not None or (self._notes and not self._notes.claim("saver")):
            return
        self.checkpointer.save(f"model_{self.done:07d}", self.state(self.done, self._kept))
        self.saved_at = self.done
        if self._watch:
            self._watch.is_saved = True

    def _where(self) -> str:
        path = self.checkpointer.output_dir / f"model_{self.done:07d}.pth"
        return f"at iteration {self.done}: saved in {path}; continue with --resume"

    # ---------------------------------------------------------------- in threads of their own

    def _hear(self, number: int) -> None:
        self.received = self.received or number  # also while the main thread cannot

    def _exchange_signals(self) -> None:
        """Tell the other processes of a signal and learn of theirs, whatever the main threads wait for."""
        has_told = False
        while not self._closed.wait(SECONDS_PER_LOOK):
            if self.received and self._notes.holds("ended"):
                self._watch.leave("", EXIT_SAVED)
            if self.received and not has_told:
                has_told = self._notes.leave("signal", str(int(self.received)))
            elif not self.received and (number := self._notes.read("signal")):
                self._watch.forward(int(number))

    def _end_without_main_thread(self, number: int) -> tuple[str, int]:
        """The main thread did not end in time: save what it cannot, unless another process does.

        From here on this thread holds the lock, so neither the weights nor a file of the run can change any more.
        """
        name = signal.Signals(number).name
        if not distributed.is_main():  # the main process has the log and writes the checkpoints, if it can
            time.sleep(PATIENCE_SECONDS)
        while not self.run.changing.acquire(timeout=PATIENCE_SECONDS):
            if not self.checkpointer.is_saving:
                last = self.checkpointer.last()
                return (
                    f"{name}: ended in the middle of iteration {self.done + 1}, which does not end; the last "
                    f"checkpoint is {last}",
                    EXIT_SAVED if last else EXIT_INTERRUPTED,
                )
        if self.saved_at is not None:  # the main thread is ending
            return self._close_in_time(number)
        self._is_leaving = True
        with _beside_the_default_stream(self._complete):
            self._save()
        if self.saved_at is None:
            self._notes.wait("ended", distributed.TIMEOUT.total_seconds())
            return "", EXIT_SAVED
        if self._notes:
            self._closed.set()  # the note is not for this process
            self._notes.leave("ended", "")
            time.sleep(2 * SECONDS_PER_LOOK)  # the others end first, since they take a lost connection for an error
        return f"{name} {self._where()}", EXIT_SAVED

    def _close_in_time(self, number: int) -> tuple[str, int]:
        time.sleep(CLOSING_SECONDS)
        return "", EXIT_SAVED


def _beside_the_default_stream(complete: torch.cuda.Event | None) -> Any:
    """On a GPU a collective that waits for a dead process blocks the stream that everything else uses."""
    if complete is None:
        return nullcontext()
    stream = torch.cuda.Stream()
    stream.wait_event(complete)
    return torch.cuda.stream(stream)
