"""The training loop: one visible step, hooks around it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engine.data.loader import Batch
from engine.errors import InputError
from engine.solver.schedule import Schedule
from engine.training.precision import Precision

SEED_STEP = 0x9E3779B97F4A7C15
"""Between the seeds of two iterations: odd and large, so that seeds of neighbouring runs do not meet (Knuth)."""


@dataclass
class Step:
    """What one iteration did.

    Attributes:
        iteration: 0-based.
        losses: scalars by name, detached, on the model's device.
        lr: learning rate of the first parameter group.
        data_seconds, seconds: waiting for the batch, and the whole step with the hooks of the one before.
        image_ids: ids of the images of this process.
        skipped: one line for each unreadable image that another one replaced.
        grad_norm: before clipping, where gradients are clipped.
    """

    iteration: int
    losses: dict[str, Tensor]
    lr: float
    data_seconds: float
    seconds: float
    image_ids: list[int | str]
    skipped: list[str] = field(default_factory=list)
    grad_norm: Tensor | None = None


class Hook:
    """Called around the loop; override what you need."""

    def before_train(self, start: int) -> None:
        """`start`: the first 0-based iteration to come."""

    def after_step(self, step: Step) -> None: ...

    def after_train(self, iteration: int) -> None:
        """`iteration`: number of iterations done. Not called when training fails."""

    def close(self) -> None:
        """Called at the end in any case."""


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    clip_norm: float = 0.0,
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Forward, backward, update. Returns the detached losses and the gradient norm (None: not clipped).

    Raises:
        InputError: the loss is not finite; nothing was updated. Names the images of the batch.
    """
    batch = batch.to(precision.device)
    with precision.autocast():
        losses = model(batch.images, batch.targets)
    total = sum(losses.values())
    if not torch.isfinite(total):
        parts = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
        ids = ", ".join(str(target.image_id) for target in batch.targets)
        raise InputError(
            f"the loss is not finite ({parts}) at images {ids}: lower SOLVER.BASE_LR or check these images"
        )
    grad_norm = precision.step(total, optimizer, model, clip_norm)
    return {name: value.detach() for name, value in losses.items()}, grad_norm


def run(
    model: nn.Module,
    loader: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    precision: Precision,
    hooks: Sequence[Hook] = (),
    start: int = 0,
    clip_norm: float = 0.0,
) -> None:
    """Train on the batches of `loader`, the first of which belongs to the 0-based iteration `start`.

    Each iteration starts from a state of torch's random numbers that its number and torch's seed alone decide, so that
    a resumed run samples what an uninterrupted one does, and all processes sample alike.
    """
    model.train()
    seed = torch.initial_seed()
    iteration = start
    try:
        for hook in hooks:
            hook.before_train(start)
        began = waiting_since = time.perf_counter()
        for iteration, batch in enumerate(loader, start):
            data_seconds = time.perf_counter() - waiting_since
            schedule.set(iteration)
            torch.manual_seed((seed + SEED_STEP * iteration) % 2**63)
            losses, grad_norm = train_step(model, batch, optimizer, precision, clip_norm)
            step = Step(
                iteration,
                losses,
                lr=optimizer.param_groups[0]["lr"],
                data_seconds=data_seconds,
                seconds=time.perf_counter() - began,
                image_ids=[target.image_id for target in batch.targets],
                skipped=batch.skipped,
                grad_norm=grad_norm,
            )
            began = time.perf_counter()
            for hook in hooks:
                hook.after_step(step)
            waiting_since = time.perf_counter()
            iteration += 1
        for hook in hooks:
            hook.after_train(iteration)
    finally:
        for hook in hooks:
            hook.close()
