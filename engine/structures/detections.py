from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.structures.pixel_convention import CONTINUOUS, PixelConvention
from engine.structures.rows import Rows, row


@dataclass
class Detections(Rows):
    """What a model found in one image (D detections, possibly none).

    Attributes:
        boxes: (D, 4) float32, xyxy, in pixels of an image of `size`.
        scores: (D,) float32 in [0, 1].
        labels: (D,) int64 in 0..K-1.
        size: (height, width) of that image.
    """

    boxes: Tensor = row(4)
    scores: Tensor = row()
    labels: Tensor = row(dtype=torch.int64)
    size: tuple[int, int]

    def resize(self, size: tuple[int, int], convention: PixelConvention = CONTINUOUS) -> Detections:
        """The same detections in the image scaled to `size` (height, width), clipped to it."""
        ratio_xy = (size[1] / self.size[1], size[0] / self.size[0])
        boxes = convention.clip(convention.scale(self.boxes, ratio_xy), size)
        return replace(self, boxes=boxes, size=tuple(size))
