"""The training loop: one step in plain sight, with hooks around it."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.data.batch import Batch
from engine.log import get_logger
from engine.solver.schedule import Schedule
from engine.training.nonfinite import NonFinite
from engine.training.precision import NO_CLIPPING, Clipping, Precision

SEED_STEP = 0x9E3779B97F4A7C15
"""Distance between the seeds of two iterations: odd and large, so that runs with close seeds do not overlap (Knuth)."""


@dataclass
class Step:
    """The outcome of one iteration.

    Attributes:
        iteration: 0-based.
        losses: scalars by name, detached, on the model's device; means over the accumulated passes.
        grad_norm: norm of the gradients before clipping; not finite in a step that the loss scale of float16 skips.
        lr: learning rate of the first parameter group.
        data_seconds, seconds: time waiting for the batch, and of the whole step with the hooks of the previous one.
        image_ids: of the images of this process.
        skipped: one line for each unreadable image that was replaced by another one.
    """

    iteration: int
    losses: dict[str, Tensor]
    grad_norm: Tensor
    lr: float
    data_seconds: float
    seconds: float
    image_ids: list[int | str]
    skipped: list[str] = field(default_factory=list)


class Hook:
    """Called by the loop; override what you need."""

    def before_train(self, start: int) -> None:
        """`start`: the first iteration to come, 0-based."""

    def before_update(self) -> None:
        """The gradients are there; the weights change next."""

    def after_step(self, step: Step) -> None:
        """Bring the own state up to date; raise `Stop` on all processes to end the training here.

        What takes long or waits for other processes belongs in `settle`.
        """

    def settle(self) -> None:
        """Do what is due now that all hooks have seen the step.

        A checkpoint made meanwhile is complete. So what is due must be part of `state_dict` until it is done: a resumed
        run calls this before its first step.
        """

    def after_train(self, iteration: int) -> None:
        """`iteration`: number of iterations done. Not called when training fails or is interrupted."""

    def close(self) -> None:
        """Always called at the end."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as plain values and tensors; stored in the checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of `state_dict`; called before `before_train`."""


class Stop(Exception):
    """Ends the training as after its last iteration; the message gives the reason."""


def train_step(
    model: nn.Module,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    clipping: Clipping = NO_CLIPPING,
    before_update: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Tensor], Tensor]:
    """Forward and backward pass of each batch, then one update with the mean of their gradients.

    Returns:
        The detached losses as means over the batches, and the norm of the gradients before clipping.

    Raises:
        NonFinite: a loss or gradient is not finite; names the images. Nothing was updated.
    """
    optimizer.zero_grad(set_to_none=True)
    means: defaultdict[str, Tensor | float] = defaultdict(float)
    for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
        batch = batch.to(precision.device)
        # Gradients are exchanged between processes only in the last of the accumulated passes.
        with model.no_sync() if left and isinstance(model, DistributedDataParallel) else nullcontext():
            with precision.autocast():
                losses = model(batch.images, batch.targets)
            total = sum(losses.values()) / len(batches)  # so that the sum of the gradients is their mean
            if not torch.isfinite(total):
                raise NonFinite("the loss is", losses, [batch])
            precision.backward(total)
        for name, value in losses.items():
            means[name] += value.detach() / len(batches)
    grad_norm = precision.clip(optimizer, clipping)
    if not (precision.skips_overflows or torch.isfinite(grad_norm)):
        raise NonFinite("the gradients are", means, batches)
    before_update()
    precision.step(optimizer)
    return dict(means), grad_norm


def run(
    model: nn.Module,
    loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    precision: Precision,
    hooks: Sequence[Hook] = (),
    start: int = 0,
    clipping: Clipping = NO_CLIPPING,
    accumulate: int = 1,
) -> None:
    """Train on the batches of `loader`, `accumulate` of them per iteration, from the 0-based iteration `start`.

    The random states of an iteration depend only on its number and on torch's seed, so a resumed run draws the same
    samples as an uninterrupted one, and all processes draw the same ones.
    """
    model.train()
    seed = torch.initial_seed()
    iteration = start

    def before_update() -> None:
        for hook in hooks:
            hook.before_update()

    with ExitStack() as ending:
        for hook in reversed(hooks):
            ending.callback(hook.close)  # in the order of `hooks`, even if others fail
        try:
            for hook in hooks:
                hook.before_train(start)
            for hook in hooks:
                hook.settle()
            began = waiting_since = time.perf_counter()
            for iteration, batches in enumerate(_groups(loader, accumulate), start):
                data_seconds = time.perf_counter() - waiting_since
                schedule.set(iteration)
                seed_iteration(seed, iteration)
                losses, grad_norm = train_step(model, batches, optimizer, precision, clipping, before_update)
                step = Step(
                    iteration,
                    losses,
                    grad_norm,
                    lr=optimizer.param_groups[0]["lr"],
                    data_seconds=data_seconds,
                    seconds=time.perf_counter() - began,
                    image_ids=[target.image_id for batch in batches for target in batch.targets],
                    skipped=[line for batch in batches for line in batch.skipped],
                )
                began = time.perf_counter()
                iteration += 1
                _show(hooks, step)
                for hook in hooks:
                    hook.settle()
                waiting_since = time.perf_counter()
        except Stop as stop:
            get_logger(__name__).info("training ends at iteration %d: %s", iteration, stop)
        for hook in hooks:
            hook.after_train(iteration)


def _show(hooks: Sequence[Hook], step: Step) -> None:
    """Call `after_step` of all hooks; a `Stop` of one is raised when all have seen the step."""
    stops = []
    for hook in hooks:
        try:
            hook.after_step(step)
        except Stop as stop:
            stops.append(stop)
    if stops:
        raise stops[0]


def _groups(loader: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def seed_iteration(seed: int, iteration: int) -> None:
    """Seed all random generators of this process for the 0-based `iteration` of a run with `seed`."""
    state = (seed + SEED_STEP * iteration) % 2**63
    torch.manual_seed(state)
    np.random.seed(state % 2**32)
    random.seed(state)
