"""What a step of the training transforms is, the registry of those that YAML names, and what steps may ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.data.transforms.randomness import random_state
from engine.errors import InputError
from engine.registry import Registry
from engine.structures import Targets

Step = Callable[[Tensor, Targets], tuple[Tensor, Targets]]

AUGMENTATIONS = Registry("AUGMENTATIONS")
"""Classes of steps, for `name` in `INPUT.AUGMENTATIONS`; the other arguments there are those of their constructors."""

BATCH_STREAM = 0x5CA1E
"""Sets what is drawn once per batch apart from what is drawn for one sample, whose key is (seed, position)."""

_MOST_TRIES = 50

Drawn = TypeVar("Drawn")


class Images(Protocol):
    """What a scene needs of a data set."""

    def __len__(self) -> int: ...

    def labels(self, index: int) -> np.ndarray: ...


@dataclass
class Scene:
    """Where a training sample stands, for steps that need more than its own image.

    All that is drawn comes from torch's default generator, which the loader has seeded with (seed, position), or from
    (seed, batch).

    Attributes:
        images: the data set that the sample is of, with tiles and repeats, if there are.
        read: image index -> pixels (H, W, C), uint8 or float32 in 0..255, and targets; raises an InputError for an
            image that cannot be read.
        index: of the sample's own image.
        seed: of the run.
        batch: number of the global batch that the sample belongs to.
        skipped: a line for each other image that cannot be read, which the next one replaces.
    """

    images: Images
    read: Callable[[int], tuple[np.ndarray, Targets]]
    index: int = 0
    seed: int = 0
    batch: int = 0
    skipped: list[str] = field(default_factory=list)

    def another(self) -> tuple[Tensor, Targets]:
        """Another image of the data set, drawn at random, as (C, H, W); the sample's own if there is no other."""
        return self._read_from(self._draw())

    def another_with_boxes(self, labels: Sequence[int] = ()) -> tuple[Tensor, Targets] | None:
        """Another image that has boxes, or boxes with some of `labels`; None if none of the first draws has any."""
        for _ in range(_MOST_TRIES):
            index = self._draw()
            found = self.images.labels(index)
            if np.isin(found, labels).any() if len(labels) else len(found):
                return self._read_from(index)
        return None

    def of_batch(self, draw: Callable[[], Drawn]) -> Drawn:
        """What `draw` returns when torch's default generator is seeded for the whole batch."""
        with random_state(self.seed, self.batch, BATCH_STREAM):
            return draw()

    def _draw(self) -> int:
        num_others = len(self.images) - 1
        return (self.index + 1 + int(torch.randint(num_others, ()))) % len(self.images) if num_others else self.index

    def _read_from(self, first: int) -> tuple[Tensor, Targets]:
        """The first image from `first` on that can be read."""
        for step in range(len(self.images)):
            try:
                image, targets = self.read((first + step) % len(self.images))
            except InputError as error:
                self.skipped.append(str(error))
                continue
            return image_tensor(image), targets
        raise InputError(f"none of {len(self.skipped)} images can be read; the first: {self.skipped[0]}")


class SceneStep(Protocol):
    """A step that is also called with the scene: it needs other images, or draws once for all images of a batch.

    A class says so by `needs_scene = True`.
    """

    needs_scene: bool

    def __call__(self, image: Tensor, targets: Targets, scene: Scene) -> tuple[Tensor, Targets]: ...


def apply(step: Step | SceneStep, image: Tensor, targets: Targets, scene: Scene | None) -> tuple[Tensor, Targets]:
    """The step's result.

    Raises:
        InputError: the step needs other images, and there is no data set to take them from.
    """
    if not getattr(step, "needs_scene", False):
        return step(image, targets)
    if scene is None:
        raise InputError(f"{type(step).__name__} needs the images of a data set; it works in training only")
    return step(image, targets, scene)


@dataclass
class Sometimes:
    """A step that is applied with probability `prob`."""

    step: Step | SceneStep
    prob: float
    needs_scene = True

    def __call__(self, image: Tensor, targets: Targets, scene: Scene | None = None) -> tuple[Tensor, Targets]:
        if torch.rand(()) >= self.prob:
            return image, targets
        return apply(self.step, image, targets, scene)


def image_tensor(pixels: np.ndarray) -> Tensor:
    """Pixels (H, W, C) as (C, H, W); a copy only of arrays that are not contiguous or must not be written to."""
    return torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)


def uniform(low: float, high: float) -> float:
    """A number drawn from [low, high]."""
    return low + (high - low) * float(torch.rand(()))


def integer(low: int, high: int) -> int:
    """A whole number drawn from low..high, both included."""
    return low + int(torch.randint(high - low + 1, ()))
