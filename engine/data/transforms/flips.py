"""Mirror images and turns by right angles, drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from engine.data.transforms.step import AUGMENTATIONS
from engine.structures import Targets
from engine.structures import boxes as box_ops


@AUGMENTATIONS.register("HorizontalFlip")
@dataclass
class RandomHorizontalFlip:
    """Swap left and right with probability `prob`."""

    prob: float = 0.5

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        if torch.rand(()) >= self.prob:
            return image, targets
        boxes = box_ops.flip_horizontal(targets.boxes, image.shape[-1])
        return F.horizontal_flip(image), replace(targets, boxes=boxes)


@AUGMENTATIONS.register("VerticalFlip")
@dataclass
class RandomVerticalFlip:
    """Swap top and bottom with probability `prob`."""

    prob: float = 0.5

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        if torch.rand(()) >= self.prob:
            return image, targets
        boxes = box_ops.flip_vertical(targets.boxes, image.shape[-2])
        return F.vertical_flip(image), replace(targets, boxes=boxes)


@AUGMENTATIONS.register("Rotate90")
class Rotate90:
    """Turn the image by right angles.

    Args:
        turns: numbers of quarter turns, counter-clockwise, to draw from; (2,) keeps height and width.
    """

    def __init__(self, turns: Sequence[int] = (1, 2, 3)) -> None:
        self.turns = list(turns)

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        turns = self.turns[int(torch.randint(len(self.turns), ()))] % 4
        boxes, (height, width) = targets.boxes, image.shape[-2:]
        for _ in range(turns):
            x1, y1, x2, y2 = boxes.unbind(dim=1)
            boxes = torch.stack([y1, width - x2, y2, width - x1], dim=1)
            height, width = width, height
        return torch.rot90(image, turns, dims=(1, 2)), replace(targets, boxes=boxes, size=(height, width))
