"""Detection over a whole data set."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import nn
from tqdm import tqdm

from engine import distributed
from engine.data.loader import Batch
from engine.structures import Detections
from engine.structures import boxes as box_ops


@dataclass
class Findings:
    """What was found in a data set.

    Attributes:
        detections: of every image by image id, on the CPU, in the coordinates of the original images.
        unreadable: image id -> why, of the images that could not be read.
    """

    detections: dict[int | str, Detections] = field(default_factory=dict)
    unreadable: dict[int | str, str] = field(default_factory=dict)


@torch.inference_mode()
def detect(
    model: nn.Module,
    loader: Iterable[Batch],
    device: torch.device,
    pixel: float = box_ops.CONTINUOUS,
) -> Findings | None:
    """Detect in every image of `loader` that can be read.

    Each process works on its own shard; the main process receives all of them, the others None. The model is put into
    evaluation mode and given back in the mode it was in.

    Args:
        model: images -> detections.
        loader: batches whose targets carry `original_size`.
        device: where the model lives.
        pixel: 1.0 in the inclusive convention, see `structures.boxes`.
    """
    was_training = model.training
    model.eval()
    found = Findings()
    bar = tqdm(loader, desc="test", disable=not (distributed.is_main() and sys.stderr.isatty()))
    for batch in bar:
        found.unreadable |= batch.unreadable
        if not len(batch):
            continue
        detections = model(batch.images.to(device))
        for target, detection in zip(batch.targets, detections, strict=True):
            found.detections[target.image_id] = detection.to("cpu").resize(target.original_size, pixel)
    model.train(was_training)
    shards = distributed.gather_objects(found)
    if shards is None:
        return None
    merged = Findings()
    for shard in shards:
        merged.detections |= shard.detections
        merged.unreadable |= shard.unreadable
    return merged
