"""The hook that averages the figures of steps and passes them to the writers."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engine import distributed
from engine.log import get_logger
from engine.training.hooks import Run
from engine.training.loop import Hook, Step
from engine.training.writers import ConsoleWriter, MetricsFile, Record, Writer, first_line


class LogHook(Hook):
    """Averages the steps of a period over all processes into one record for the console, metrics.jsonl and `writers`.

    The last record covers the steps since the one before it. Each unreadable image is logged once, and all are counted.
    A run resumed in the middle of a period continues with the sums of that period (those of the main process).

    A record covers `period` iterations. The additional `writers` are used on the main process only; if they fail after
    opening, training continues. `data` is the summary of the training data, see `MetricsFile`.
    """

    def __init__(
        self, run: Run, period: int, writers: Sequence[Writer] = (), data: Mapping[str, Any] | None = None
    ) -> None:
        self.run, self.period, self.max_iter = run, period, run.max_iter
        self.console = ConsoleWriter(run.max_iter)
        self.writers = [self.console, MetricsFile(run.output_dir, data)]
        self.trackers = list(writers)
        self.pending: list[Record] = []  # written, but not yet passed on to the trackers
        self.failed: list[Writer] = []  # trackers whose failure was logged
        self.opened = ExitStack()
        self.logger = get_logger(__name__)
        self.sums: Counter[str] = Counter()  # of tensors and floats; its `update` adds
        self.num_steps = 0
        self.due = 0  # the iteration to log, if there is one
        self.lr = 0.0  # of the last step
        self.skipped: list[str] = []  # on this process since the last record
        self.unreadable: set[str] = set()  # named so far
        self.num_skipped = 0

    def before_train(self, start: int) -> None:
        if distributed.is_main():
            for writer in self.writers:
                writer.open(start)
                self.opened.callback(writer.close)
            for tracker in self.trackers:
                tracker.open(start)
                self.opened.callback(self._try, tracker, tracker.close)

    def after_step(self, step: Step) -> None:
        self.skipped += step.skipped
        self.sums.update({"loss": sum(step.losses.values()), **step.losses, "grad_norm": step.grad_norm})
        self.sums.update({"time": step.seconds, "data_time": step.data_seconds})
        self.num_steps += 1
        self.lr = step.lr
        self.console.advance()
        done = step.iteration + 1
        if done % self.period == 0 or done == self.max_iter:
            self.due = done

    def settle(self) -> None:
        if self.due:
            self._log_means(self.due)
        self._pass_on()

    def write(self, record: Record) -> None:
        """Pass a record of your own to all writers; only the main process writes it."""
        if not distributed.is_main():
            return
        # JSON has no infinity. The gradient norm is infinite in steps that the loss scale of float16 skips.
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        for writer in self.writers:
            writer.write(finite)
        self.pending.append(finite)

    def _pass_on(self) -> None:
        """Give the trackers what was written: they may block, and a signal could not save a checkpoint meanwhile."""
        while self.pending:
            record = self.pending.pop(0)
            for tracker in self.trackers:
                self._try(tracker, partial(tracker.write, record))

    def after_train(self, iteration: int) -> None:
        if self.num_steps:  # training ended within a period
            self._log_means(iteration)
        if self.num_skipped:
            self.logger.warning(
                "%d unreadable image(s) were drawn %d time(s) and replaced", len(self.unreadable), self.num_skipped
            )

    def close(self) -> None:
        self._pass_on()
        self.opened.close()

    def state_dict(self) -> dict[str, Any]:
        if not (self.num_steps or self.num_skipped or self.pending):
            return {}
        return {
            "sums": {name: float(total) for name, total in self.sums.items()},
            "num_steps": self.num_steps,
            "num_skipped": self.num_skipped,
            "skipped": list(self.skipped),
            "unreadable": sorted(self.unreadable),
            "due": self.due,
            "lr": self.lr,
            "pending": list(self.pending),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums.update(state["sums"])
        self.num_steps, self.num_skipped = state["num_steps"], state["num_skipped"]
        self.unreadable.update(state["unreadable"])
        self.due, self.lr = state.get("due", 0), state.get("lr", 0.0)
        if distributed.is_main():
            self.skipped += state["skipped"]
            self.pending += state.get("pending", [])

    def _log_means(self, done: int) -> None:
        own = {name: float(total) / self.num_steps for name, total in self.sums.items()}
        shares = distributed.gather_objects((own, self.skipped))
        with self.run.changing:  # a checkpoint has either the sums or the record
            self.sums.clear()
            self.num_steps, self.skipped, self.due = 0, [], 0
            if shares is not None:
                self._write_means(done, shares)

    def _write_means(self, done: int, shares: list[tuple[dict[str, float], list[str]]]) -> None:
        # Loss normalisers are averaged over the processes, so the mean of the losses is the loss of a single process.
        means = {name: sum(share[name] for share, _ in shares) / len(shares) for name in shares[0][0]}
        self._note_skipped([line for _, lines in shares for line in lines])
        record: dict[str, int | float] = {"iteration": done, "lr": self.lr, **means}
        record["eta_seconds"] = round(means["time"] * (self.max_iter - done))
        memory = memory_mb(next(self.run.model.parameters()).device)
        if memory is not None:
            record["memory_mb"] = memory
        if self.num_skipped:
            record["skipped_images"] = self.num_skipped
        self.write(record)

    def _try(self, tracker: Writer, action: Callable[[], None]) -> None:
        """A full disk or a server that is down does not end the training; the first failure is logged."""
        try:
            action()
        except Exception as error:  # each library has its own exceptions
            if tracker not in self.failed:
                self.failed.append(tracker)
                name = type(tracker).__name__
                self.logger.warning("%s failed to record metrics and may miss more: %s", name, first_line(error))

    def _note_skipped(self, skipped: list[str]) -> None:
        self.num_skipped += len(skipped)
        for line in skipped:
            if line not in self.unreadable:
                self.unreadable.add(line)
                self.logger.warning("unreadable image skipped: %s", line)


def memory_mb(device: torch.device) -> int | None:
    """Memory of this process in MB (2**20 bytes): on a GPU the peak allocated by torch, otherwise the resident set.

    On macOS, where the system does not provide the resident set, it is the peak so far; on Windows it is None.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    if sys.platform == "win32":
        return None
    import resource  # does not exist on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> 20 if sys.platform == "darwin" else peak >> 10
