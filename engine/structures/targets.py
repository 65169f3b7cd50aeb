from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Targets:
    """Ground truth of one image (M boxes, possibly none).

    Attributes:
        boxes: (M, 4) float32, xyxy, in pixels of the image the model sees.
        labels: (M,) int64 in 0..K-1.
        ignore: (M,) bool, True for regions (COCO crowds) that are neither positive nor negative.
        image_id: id in the annotation file.
        size: (height, width) of the image the model sees, without padding.
        original_size: (height, width) of the image file as read, where known.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor
    image_id: int | str
    size: tuple[int, int]
    original_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def to(self, device: torch.device | str) -> Targets:
        # Towards the CPU nothing would tell when a copy that does not block has arrived.
        non_blocking = torch.device(device).type == "cuda"
        return replace(
            self,
            boxes=self.boxes.to(device, non_blocking=non_blocking),
            labels=self.labels.to(device, non_blocking=non_blocking),
            ignore=self.ignore.to(device, non_blocking=non_blocking),
        )
