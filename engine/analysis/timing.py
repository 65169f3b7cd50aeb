"""How long a training step takes on this machine, measured while other programs may run.

Shapes: N images, M boxes per image, C channels, H W.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.data.batch import Batch
from engine.structures import ImageBatch, Targets, padded_size
from engine.training.loop import train_step
from engine.training.precision import Clipping, Precision

WARM_UP = 1
"""Steps that are not timed: the first one allocates memory and chooses kernels."""
MOST = 6
"""Timed steps."""
LEAST_SHARE = 0.7
"""Share of the processors' time that the threads of a step get where nothing else runs, at least."""
SERIAL_PART = 0.1
"""Of a step, what more threads do not make faster (measured with two)."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step; `is_estimated` where the machine was too busy to measure them with all threads."""

    seconds: float
    is_estimated: bool = False


def time_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    batch: Batch,
    most_seconds: float = 5.0,
) -> StepTime:
    """How long a training step takes, without the loading of images.

    It is the fastest of several steps, since other programs can only slow one down. Where they also take processors
    from the threads of a step, which then wait for each other and need many times as long, it is estimated from the
    processor time of one thread.

    Args:
        model: in training mode, on the device of `precision`; its weights change.
        batch: see `noise`.
        most_seconds: no step begins after this, once one was timed.
    """
    is_gpu = precision.device.type == "cuda"

    def fastest() -> tuple[float, float]:
        """Seconds by the clock, and of the processors."""
        times, start = [], time.perf_counter()
        while len(times) <= WARM_UP or (len(times) < WARM_UP + MOST and time.perf_counter() - start < most_seconds):
            began, computed = time.perf_counter(), time.process_time()
            train_step(model, [batch], optimizer, precision, Clipping(norm=5.0))
            if is_gpu:
                torch.cuda.synchronize(precision.device)
            times.append((time.perf_counter() - began, time.process_time() - computed))
        return min(times[WARM_UP:])

    threads = torch.get_num_threads()
    if is_gpu:
        return StepTime(fastest()[0])
    seconds, computing = fastest()
    if computing >= LEAST_SHARE * seconds * threads:
        return StepTime(seconds)
    torch.set_num_threads(1)
    try:
        _, computing = fastest()
    finally:
        torch.set_num_threads(threads)
    estimate = computing * (SERIAL_PART + (1 - SERIAL_PART) / threads)
    return StepTime(min(seconds, estimate), estimate < seconds)


def noise(batch: int, channels: int, size: tuple[int, int], num_boxes: int, divisibility: int) -> Batch:
    """N images of noise of `size` (height, width), padded to multiples of `divisibility`, with M random boxes each."""
    generator = torch.Generator().manual_seed(0)
    tensor = torch.randn(batch, channels, *padded_size(size, divisibility), generator=generator) * 50  # (N, C, H, W)
    targets = [_random_targets(num_boxes, size, generator) for _ in range(batch)]
    return Batch(ImageBatch(tensor, [size] * batch), targets)


def _random_targets(num_boxes: int, size: tuple[int, int], generator: torch.Generator) -> Targets:
    limit = torch.tensor([size[1], size[0]], dtype=torch.float32)
    corners = torch.rand(num_boxes, 2, generator=generator) * limit * 0.7
    extents = (0.05 + 0.2 * torch.rand(num_boxes, 2, generator=generator)) * limit
    boxes: Tensor = torch.cat([corners, corners + extents], dim=1)  # (M, 4)
    labels = torch.zeros(num_boxes, dtype=torch.int64)
    return Targets(boxes, labels, torch.zeros(num_boxes, dtype=torch.bool), 0, size, size)
