"""Mirror images, drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from engine.structures import Targets
from engine.structures import boxes as box_ops


@dataclass
class RandomHorizontalFlip:
    """Swap left and right with probability `prob`."""

    prob: float

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        if torch.rand(()) >= self.prob:
            return image, targets
        boxes = box_ops.flip_horizontal(targets.boxes, image.shape[-1])
        return F.horizontal_flip(image), replace(targets, boxes=boxes)


@dataclass
class RandomVerticalFlip:
    """Swap top and bottom with probability `prob`."""

    prob: float

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        if torch.rand(()) >= self.prob:
            return image, targets
        boxes = box_ops.flip_vertical(targets.boxes, image.shape[-2])
        return F.vertical_flip(image), replace(targets, boxes=boxes)
