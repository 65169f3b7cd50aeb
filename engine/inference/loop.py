"""Detection over a whole data set."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from tqdm import tqdm

from engine import distributed
from engine.data.batch import Batch
from engine.data.transforms import random_state
from engine.data.workers import naming_dead_workers
from engine.device import explaining_out_of_memory
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import CONTINUOUS, Detections, PixelConvention


@dataclass
class Findings:
    """What was found in a data set.

    Attributes:
        detections: image id -> detections, on the CPU, in the coordinates of the original image.
        unreadable: image id -> why it could not be read.
        losses: image id -> losses by name, if they were asked for; see `image_losses`.
    """

    detections: dict[int | str, Detections] = field(default_factory=dict)
    unreadable: dict[int | str, str] = field(default_factory=dict)
    losses: dict[int | str, dict[str, float]] = field(default_factory=dict)


@torch.no_grad()  # not inference_mode: what a part of the user's own keeps may be trained with afterwards
@naming_dead_workers()
def detect(
    model: nn.Module,
    loader: Iterable[Batch],
    device: torch.device,
    convention: PixelConvention = CONTINUOUS,
    with_losses: bool = False,
) -> Findings | None:
    """Detect in every image of `loader` that can be read.

    Each process works on its own shard; the main process returns what all of them found, the others None. The model is
    in evaluation mode meanwhile, see `evaluation_mode`. Its buffers (statistics of norms) become those of the main
    process, which are in the checkpoints.

    Args:
        model: its `detect` takes images, see `modeling.detector`.
        loader: batches whose targets have `original_size`.
        device: where the model is.
        convention: what the sides of boxes mean.
        with_losses: find the losses too; `model` must then be a detector without augmentation.

    Raises:
        InputError: the GPU ran out of memory.
    """
    distributed.broadcast_tensors(model.buffers())
    # leave=None: below the bar of a training this one disappears when it is done.
    bar = tqdm(loader, desc="test", leave=None, disable=not (distributed.is_main() and sys.stderr.isatty()))
    found = Findings()
    advice = "lower TEST.IMS_PER_BATCH or INPUT.MIN_SIZE_TEST"
    with explaining_out_of_memory(advice, "in testing"), evaluation_mode(model):
        for batch in bar:
            found.unreadable |= batch.unreadable
            if not len(batch):
                continue
            batch = batch.to(device)
            for target, detection in zip(batch.targets, model.detect(batch.images), strict=True):
                found.detections[target.image_id] = detection.to("cpu").resize(target.original_size, convention)
            if with_losses:
                found.losses |= image_losses(model, batch)
    shards = distributed.gather_objects(found)
    if shards is None:
        return None
    merged = Findings()
    for shard in shards:
        merged.detections |= shard.detections
        merged.unreadable |= shard.unreadable
        merged.losses |= shard.losses
    return merged


@torch.no_grad()
@naming_dead_workers()
def find_losses(
    model: GeneralizedRCNN, loader: Iterable[Batch], device: torch.device
) -> dict[int | str, dict[str, float]] | None:
    """Losses by name of every image of `loader` that can be read, by image id; see `detect` and `image_losses`."""
    distributed.broadcast_tensors(model.buffers())
    losses: dict[int | str, dict[str, float]] = {}
    with explaining_out_of_memory("lower TEST.IMS_PER_BATCH", "in testing"), evaluation_mode(model):
        for batch in loader:
            if len(batch):
                losses |= image_losses(model, batch.to(device))
    shards = distributed.gather_objects(losses)
    return None if shards is None else {key: row for shard in shards for key, row in shard.items()}


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """`model` is in evaluation mode within the block; then each of its parts is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def image_losses(model: GeneralizedRCNN, batch: Batch) -> dict[int | str, dict[str, float]]:
    """Losses by name of each image of `batch`, by image id.

    They are those of a training batch of this image alone, padded no further than it needs: what a loss is divided by
    (positives, sampled regions) is counted in this image. So they depend neither on the other images of the batch nor
    on the number of processes. What samplers draw is a function of the image id.

    Args:
        model: in evaluation mode, and so are its norms and dropout; nothing in it is changed.
        batch: on the model's device.
    """
    losses = {}
    with distributed.alone():
        for image, target in zip(batch.images.unpadded(), batch.targets, strict=True):
            with random_state(0):  # from which samplers seed a generator for each image id
                found = model.losses([image], [target])
            figures = torch.stack([value.float() for value in found.values()]).tolist()
            losses[target.image_id] = dict(zip(found, figures, strict=True))
    return losses


def mean_losses(losses: Mapping[int | str, Mapping[str, float]]) -> dict[str, float]:
    """Means over the images of losses by image id, and their sum, "loss"; {} without images.

    fsum rounds only once, so the order of the images does not matter.

    Example:
        >>> mean_losses({7: {"loss_cls": 1.0, "loss_reg": 0.5}, 9: {"loss_cls": 2.0, "loss_reg": 0.0}})
        {'loss': 1.75, 'loss_cls': 1.5, 'loss_reg': 0.25}
    """
    if not losses:
        return {}
    names = next(iter(losses.values()))
    means = {name: math.fsum(row[name] for row in losses.values()) / len(losses) for name in names}
    return {"loss": math.fsum(means.values()), **means}
