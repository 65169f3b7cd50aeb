from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.structures import boxes as box_ops


@dataclass
class Detections:
    """What a model found in one image (D detections, possibly none).

    Attributes:
        boxes: (D, 4) float32, xyxy, in pixels of an image of `size`.
        scores: (D,) float32 in [0, 1].
        labels: (D,) int64 in 0..K-1.
        size: (height, width) of that image.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Tensor | slice) -> Detections:
        return replace(self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index])

    def to(self, device: torch.device | str) -> Detections:
        return replace(self, boxes=self.boxes.to(device), scores=self.scores.to(device), labels=self.labels.to(device))

    def resize(self, size: tuple[int, int], pixel: float = box_ops.CONTINUOUS) -> Detections:
        """The same detections in the image scaled to `size` (height, width); see `boxes.scale` for `pixel`."""
        ratio_xy = (size[1] / self.size[1], size[0] / self.size[0])
        boxes = box_ops.clip(box_ops.scale(self.boxes, ratio_xy, pixel), size, pixel)
        return replace(self, boxes=boxes, size=tuple(size))
