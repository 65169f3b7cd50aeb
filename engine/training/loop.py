"""The training loop: one visible step, hooks around it."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.data.loader import Batch
from engine.log import get_logger
from engine.solver.schedule import Schedule
from engine.training.nonfinite import NonFinite
from engine.training.precision import NO_CLIPPING, Clipping, Precision

SEED_STEP = 0x9E3779B97F4A7C15
"""Between the seeds of two iterations: odd and large, so that seeds of neighbouring runs do not meet (Knuth)."""


@dataclass
class Step:
    """What one iteration did.

    Attributes:
        iteration: 0-based.
        losses: scalars by name, detached, on the model's device; means over the passes of the iteration.
        grad_norm: of the gradients before they are clipped; not finite in a step that float16's loss scale skips.
        lr: learning rate of the first parameter group.
        data_seconds, seconds: waiting for the batch, and the whole step with the hooks of the one before.
        image_ids: ids of the images of this process.
        skipped: one line for each unreadable image that another one replaced.
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
    """Called around the loop; override what you need."""

    def before_train(self, start: int) -> None:
        """`start`: the first 0-based iteration to come."""

    def after_step(self, step: Step) -> None:
        """Raise `Stop` on every process to end the training here."""

    def after_train(self, iteration: int) -> None:
        """`iteration`: number of iterations done. Not called when training fails or is interrupted."""

    def close(self) -> None:
        """Called at the end in any case."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know, of plain values and tensors; it travels in the checkpoints."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave, before `before_train`."""


class Stop(Exception):
    """Ends the training as if its last iteration were done; the message says why."""


def train_step(
    model: nn.Module,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    clipping: Clipping = NO_CLIPPING,
) -> tuple[dict[str, Tensor], Tensor]:
    """Forward and backward of each batch, one update with the mean of their gradients.

    Returns:
        The detached losses, means over the batches, and the norm of the gradients before it was clipped.

    Raises:
        NonFinite: names the images; nothing was updated.
    """
    optimizer.zero_grad(set_to_none=True)
    means: defaultdict[str, Tensor | float] = defaultdict(float)
    for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
        batch = batch.to(precision.device)
        with _no_exchange(model) if left else nullcontext():
            with precision.autocast():
                losses = model(batch.images, batch.targets)
            total = sum(losses.values()) / len(batches)
            if not torch.isfinite(total):
                raise NonFinite("the loss is", losses, [batch])
            precision.backward(total)
        for name, value in losses.items():
            means[name] += value.detach() / len(batches)
    grad_norm = precision.clip(optimizer, clipping)
    if not (precision.skips_overflows or torch.isfinite(grad_norm)):
        raise NonFinite("the gradients are", means, batches)
    precision.step(optimizer)
    return dict(means), grad_norm


def _no_exchange(model: nn.Module) -> AbstractContextManager:
    """Gradients stay in their process until the last of the accumulated passes."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


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
    """Train on the batches of `loader`, `accumulate` of them an iteration, the first belonging to the 0-based `start`.

    Each iteration starts from random states that its number and torch's seed alone decide, so that a resumed run
    samples what an uninterrupted one does, and all processes sample alike.
    """
    model.train()
    seed = torch.initial_seed()
    iteration = start
    with ExitStack() as ending:
        for hook in reversed(hooks):
            ending.callback(hook.close)  # in the order of `hooks`, each whatever the others do
        try:
            for hook in hooks:
                hook.before_train(start)
            began = waiting_since = time.perf_counter()
            for iteration, batches in enumerate(_groups(loader, accumulate), start):
                data_seconds = time.perf_counter() - waiting_since
                schedule.set(iteration)
                seed_iteration(seed, iteration)
                losses, grad_norm = train_step(model, batches, optimizer, precision, clipping)
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
                for hook in hooks:
                    hook.after_step(step)
                waiting_since = time.perf_counter()
        except Stop as stop:
            get_logger(__name__).info("training ends at iteration %d: %s", iteration, stop)
        for hook in hooks:
            hook.after_train(iteration)


def _groups(loader: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def seed_iteration(seed: int, iteration: int) -> None:
    """Set every random state of this process to what belongs to the 0-based `iteration` of a run with `seed`."""
    state = (seed + SEED_STEP * iteration) % 2**63
    torch.manual_seed(state)
    np.random.seed(state % 2**32)
    random.seed(state)
