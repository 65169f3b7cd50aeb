"""What happens around the training step: checkpoints and logs."""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TextIO

import torch
from fvcore.common.registry import Registry
from torch import nn
from tqdm import tqdm

from engine import distributed
from engine.checkpoint import Checkpointer
from engine.log import get_logger
from engine.training.loop import Hook, Step

METRICS_FILE = "metrics.jsonl"
FINAL = "model_final"

HOOKS = Registry("HOOKS")
"""Hooks for `SOLVER.HOOKS`: (run: Run) -> Hook."""


@dataclass(frozen=True)
class Run:
    """What a hook may want to know of the training it joins, and change.

    Attributes:
        model: the bare detector (not the wrapper of several processes).
        optimizer: of its parameters.
        output_dir: folder of the run, there already.
        max_iter: iterations of the whole run.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    output_dir: Path
    max_iter: int


class CheckpointHook(Hook):
    """Saves `model_0002500.pth` every `period` iterations and `model_final.pth` at the end, on the main process.

    Args:
        checkpointer: where they go.
        state: called with the number of iterations done, gives the content.
        period: iterations between two; 0 keeps only the last.
    """

    def __init__(self, checkpointer: Checkpointer, state: Callable[[int], dict[str, Any]], period: int) -> None:
        self.checkpointer, self.state, self.period = checkpointer, state, period

    def after_step(self, step: Step) -> None:
        done = step.iteration + 1
        if self.period > 0 and done % self.period == 0 and distributed.is_main():
            self.checkpointer.save(f"model_{done:07d}", self.state(done))

    def after_train(self, iteration: int) -> None:
        if distributed.is_main():
            self.checkpointer.save(FINAL, self.state(iteration))


class LogHook(Hook):
    """Averages the steps of a period, over all processes, into one line of the log and one object of `metrics.jsonl`.

    On a terminal a bar shows the progress. Unreadable images are named once each and counted. After a resume the
    lines of iterations that will be done again are dropped from the file.

    Args:
        output_dir: folder of `metrics.jsonl`.
        period: iterations a line.
        max_iter: iterations of the whole run.
    """

    def __init__(self, output_dir: Path, period: int, max_iter: int) -> None:
        self.path = output_dir / METRICS_FILE
        self.period, self.max_iter = period, max_iter
        self.logger = get_logger(__name__)
        self.sums: defaultdict[str, Any] = defaultdict(float)
        self.num_steps = 0
        self.skipped: list[str] = []  # on this process since the last line
        self.unreadable: set[str] = set()  # named so far
        self.num_skipped = 0
        self.file: TextIO | None = None
        self.bar: tqdm | None = None

    def before_train(self, start: int) -> None:
        if not distributed.is_main():
            return
        drop_metrics_after(self.path, start)
        self.file = self.path.open("a", encoding="utf-8")
        self.bar = tqdm(
            total=self.max_iter, initial=start, desc="train", disable=not sys.stderr.isatty(), dynamic_ncols=True
        )

    def after_step(self, step: Step) -> None:
        self.skipped += step.skipped
        for name, value in step.losses.items():
            self.sums[name] += value
        self.sums["loss"] += sum(step.losses.values())
        if step.grad_norm is not None:
            self.sums["grad_norm"] += step.grad_norm
        self.sums["time"] += step.seconds
        self.sums["data_time"] += step.data_seconds
        self.num_steps += 1
        if self.bar is not None:
            self.bar.update()
        done = step.iteration + 1
        if done % self.period == 0 or done == self.max_iter:
            self._write(done, step.lr)

    def _note_skipped(self, skipped: list[str]) -> None:
        self.num_skipped += len(skipped)
        for line in skipped:
            if line not in self.unreadable:
                self.unreadable.add(line)
                self.logger.warning("unreadable image skipped: %s", line)

    def _write(self, done: int, lr: float) -> None:
        own = {name: float(total) / self.num_steps for name, total in self.sums.items()}
        shares = distributed.gather_objects((own, self.skipped))
        self.sums.clear()
        self.num_steps, self.skipped = 0, []
        if shares is None or self.file is None:
            return
        # The loss normalisers are averages over the processes, so the mean of the losses is what one process would see.
        means = {name: sum(share[name] for share, _ in shares) / len(shares) for name in own}
        self._note_skipped([line for _, lines in shares for line in lines])
        seconds_left = means["time"] * (self.max_iter - done)
        record = {"iteration": done, "lr": lr, **means, "eta_seconds": round(seconds_left)}
        if torch.cuda.is_available():
            record["memory_mb"] = torch.cuda.max_memory_allocated() >> 20
        if self.num_skipped:
            record["skipped_images"] = self.num_skipped
        # The norm is infinite in the steps that the loss scale of float16 skips, and JSON knows no infinity.
        finite = {name: value if math.isfinite(value) else None for name, value in record.items()}
        self.file.write(json.dumps(finite) + "\n")
        self.file.flush()
        self.logger.info(_line(record, self.max_iter))

    def after_train(self, iteration: int) -> None:
        if self.num_skipped:
            self.logger.warning(
                "%d unreadable image(s) were met %d time(s) and replaced", len(self.unreadable), self.num_skipped
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.file is not None:
            self.file.close()


def _line(record: dict[str, Any], max_iter: int) -> str:
    eta = timedelta(seconds=record["eta_seconds"])
    losses = "  ".join(f"{k} {v:.4f}" for k, v in record.items() if k.startswith("loss"))
    return (
        f"iter {record['iteration']}/{max_iter}  eta {eta}  {losses}  lr {record['lr']:.3g}  "
        f"time {record['time']:.3f}  data {record['data_time']:.3f}"
        + (f"  memory {record['memory_mb']} MB" if "memory_mb" in record else "")
    )


def drop_metrics_after(path: Path, iteration: int) -> None:
    """Keep in `path` (one JSON object a line) what was logged up to `iteration`; a torn last line goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record.get("iteration", 0) <= iteration:
            kept.append(line)
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
