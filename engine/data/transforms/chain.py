"""Steps put together, from an image as read to the input of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from engine.data.transforms.flips import RandomHorizontalFlip, RandomVerticalFlip
from engine.data.transforms.pixels import ColorJitter, Normalize
from engine.data.transforms.resize import Resize
from engine.data.transforms.step import Scene, SceneStep, Step, apply, image_tensor
from engine.structures import INCLUSIVE, PixelConvention, Targets


class Transform:
    """A chain of transforms for an image as read.

    Call it with pixels (H, W, C), as `engine.data.image_file.read_image` returns them, and targets; it returns a
    float32 tensor (C, H', W') and the targets in its pixels. Without targets (an image to predict on) it returns None
    in their place. `scene` is for steps that need more than the image, see `Scene`.
    """

    def __init__(self, steps: Sequence[Step | SceneStep]) -> None:
        self.steps = list(steps)

    def __call__(
        self, image: np.ndarray, targets: Targets | None = None, scene: Scene | None = None
    ) -> tuple[Tensor, Targets | None]:
        tensor = image_tensor(image)  # (C, H, W)
        current = Targets.empty(image_id=-1, size=image.shape[:2]) if targets is None else targets
        for step in self.steps:
            tensor, current = apply(step, tensor, current, scene)
        return tensor, None if targets is None else current


def split_normalize(transform: Transform) -> tuple[Transform, Normalize | None]:
    """A transform as all but its last step and that step, if it is `Normalize`, which can write into a batch."""
    if isinstance(transform, Transform) and transform.steps and isinstance(transform.steps[-1], Normalize):
        return Transform(transform.steps[:-1]), transform.steps[-1]
    return transform, None


def train_transform(
    min_sizes: Sequence[int],
    max_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    to_bgr255: bool = True,
    horizontal_flip: float = 0.5,
    vertical_flip: float = 0.0,
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    convention: PixelConvention = INCLUSIVE,
    augmentations: Sequence[Step | SceneStep] = (),
) -> Transform:
    """The `augmentations` in their order on the image as read, then resize, flip, jitter and normalise.

    Args:
        jitter: (brightness, contrast, saturation, hue), all 0 for none.
        augmentations: if one of them sets the size of the image (`sets_size`), it is not resized once more.
    """
    steps: list[Step | SceneStep] = list(augmentations)
    if not any(getattr(step, "sets_size", False) for step in steps):
        steps.append(Resize(min_sizes, max_size, convention))
    if horizontal_flip > 0:
        steps.append(RandomHorizontalFlip(horizontal_flip))
    if vertical_flip > 0:
        steps.append(RandomVerticalFlip(vertical_flip))
    if any(jitter):
        steps.append(ColorJitter(*jitter))
    steps.append(Normalize(mean, std, to_bgr255))
    return Transform(steps)


def test_transform(
    min_size: int,
    max_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    to_bgr255: bool = True,
    convention: PixelConvention = INCLUSIVE,
) -> Transform:
    """Resize and normalise; nothing is random."""
    return Transform([Resize([min_size], max_size, convention), Normalize(mean, std, to_bgr255)])
