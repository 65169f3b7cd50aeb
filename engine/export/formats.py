"""The formats of exported files, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.registry import Registry
from engine.runtime.card import ModelCard

if TYPE_CHECKING:
    from engine.export.graph import DetectionGraph
    from engine.export.quantize import Sample


@dataclass(frozen=True)
class ExportOptions:
    """How a network is written.

    Attributes:
        precision: from `precision.PRECISIONS`, one that the format has.
        samples: inputs on which the ranges of int8 are measured.
        kept: modules that stay in float in int8.
        deformable: from `deformable.DEFORMABLE_FORMS`; the formats of torch keep torchvision's operator.
    """

    precision: str = "fp32"
    samples: Sequence[Sample] = ()
    kept: Sequence[str] = ()
    deformable: str = "auto"


Writer = Callable[["DetectionGraph", ModelCard, Path, ExportOptions], None]
"""(graph on the CPU, card, path, options) writes the file, and what belongs to it beside it, into a folder where no one
looks for them yet."""
EXPORT_FORMATS = Registry("EXPORT_FORMATS")
"""`Writer` by the value of --format."""


def example_inputs(graph: DetectionGraph, card: ModelCard) -> tuple[Tensor, Tensor]:
    """Images and sizes of the fixed sizes of the card, or of any sizes where it leaves them open; all black.

    A size of 0 or 1 would be taken for a constant: there are two images, and two cells at least on every level.
    """
    side = 2 * max(graph.model.rpn.anchor_generator.strides)
    height, width = card.shape.image_size or card.shape.input_size or (side + 32, side + 96)
    images = torch.zeros(card.shape.batch_size or 2, height, width, card.images.channels)
    sizes = torch.tensor([[height, width]]).repeat(len(images), 1)
    return images.to(getattr(torch, card.images.pixels)), sizes


def open_axes(card: ModelCard) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """The axes of images and of sizes that the card leaves open, with their names."""
    batch = [] if card.shape.batch_size else [(0, "batch")]
    is_fixed = card.shape.image_size or card.shape.input_size
    return batch + ([] if is_fixed else [(1, "height"), (2, "width")]), batch
