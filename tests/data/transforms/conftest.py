from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from engine.data.transforms import Scene
from engine.structures import Targets

Boxes = Sequence[Sequence[float]]


def targets_of(boxes: Boxes, size: tuple[int, int], ignore: Sequence[bool] = (), first_label: int = 0) -> Targets:
    """Targets whose labels count up, so that each box can be told."""
    return Targets(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(first_label, first_label + len(boxes)),
        ignore=torch.tensor(ignore or [False] * len(boxes), dtype=torch.bool),
        image_id=1,
        size=size,
        original_size=size,
    )


class Pictures:
    """A data set in memory."""

    def __init__(self, images: Sequence[np.ndarray], targets: Sequence[Targets]) -> None:
        self.images, self.targets, self.broken = images, targets, set()
        self.num_read = 0

    def __len__(self) -> int:
        return len(self.images)

    def labels(self, index: int) -> np.ndarray:
        return self.targets[index].labels[~self.targets[index].ignore].numpy()

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        from engine.errors import InputError

        self.num_read += 1
        if index in self.broken:
            raise InputError(f"image {index} is broken")
        return self.images[index], self.targets[index]


@pytest.fixture
def targets() -> Callable[..., Targets]:
    return targets_of


@pytest.fixture
def scene_of() -> Callable[..., Scene]:
    """A scene of pictures (H, W, C) and their targets."""

    def scene(images: Sequence[np.ndarray], targets: Sequence[Targets], index: int = 0, batch: int = 0) -> Scene:
        pictures = Pictures(images, targets)
        return Scene(pictures, pictures.read, index, seed=5, batch=batch)

    return scene
