"""Images and targets that a model takes at once.

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from engine.structures import ImageBatch, Targets


@dataclass
class Batch:
    """N images and their targets.

    Attributes:
        images: (N, C, H, W) and the unpadded sizes.
        skipped: one line for each unreadable training image that another one replaced, with file and image id.
        unreadable: image id -> reason, for the test images of this batch that cannot be read.
        damaged_files: one line for each image file that can be decoded although it is damaged.
    """

    images: ImageBatch
    targets: list[Targets]
    skipped: list[str] = field(default_factory=list)
    unreadable: dict[int | str, str] = field(default_factory=dict)
    damaged_files: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Batch:
        return replace(self, images=self.images.to(device), targets=[target.to(device) for target in self.targets])

    def pin_memory(self) -> Batch:
        """Called by torch's DataLoader; the target tensors are too small to be worth pinning."""
        return replace(self, images=replace(self.images, tensor=self.images.tensor.pin_memory()))

    # A tensor that torch sends to another process takes a file descriptor and space in /dev/shm, which are scarce. The
    # small tensors are sent by value, as arrays; for the images see `engine.data.parcel`.
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "targets": [target.map_rows(Tensor.numpy) for target in self.targets]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        targets = [target.map_rows(torch.from_numpy) for target in state["targets"]]
        self.__dict__.update(state, targets=targets)
