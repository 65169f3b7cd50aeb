from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.structures.rows import Rows, row


@dataclass
class Targets(Rows):
    """Ground truth of one image (M boxes, possibly none).

    Attributes:
        boxes: (M, 4) float32, xyxy, in pixels of the image the model sees.
        labels: (M,) int64 in 0..K-1.
        ignore: (M,) bool, True for regions (COCO crowds) that are neither positive nor negative.
        image_id: id in the annotation file.
        size: (height, width) of the image the model sees, without padding.
        original_size: (height, width) of the image file as read, where known.
    """

    boxes: Tensor = row(4)
    labels: Tensor = row(dtype=torch.int64)
    ignore: Tensor = row(dtype=torch.bool)
    image_id: int | str
    size: tuple[int, int]
    original_size: tuple[int, int] | None = None
