"""What a predictor does to an image, stage by stage, so that the stages of several images can overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Stages(Protocol):
    """A predictor that can be called in parts; `inference.predictor.ImagePredictor` is one.

    Every method may be called by several threads at once.
    """

    class_names: Sequence[str]
    batch_size: int

    def pixels(self, image: Any, color: str = "bgr") -> np.ndarray:
        """An image of any kind as pixels (H, W, C)."""

    def network_input(self, pixels: np.ndarray) -> Any:
        """What the network sees of these pixels."""

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """What the network finds in each of several images."""

    def finish(self, detections: Any, size: tuple[int, int]) -> Any:
        """Those that reach their threshold, in pixels of an image of `size` (height, width)."""


class WholeCalls:
    """The stages of a predictor that is only called: everything but the reading of images is in its call.

    Args:
        predictor: list of BGR images (H, W, C) -> list of detections.
    """

    def __init__(self, predictor: Any) -> None:
        self.predictor = predictor
        self.class_names = predictor.class_names
        self.batch_size: int = getattr(predictor, "batch_size", 1)

    def pixels(self, image: Any, color: str = "bgr") -> np.ndarray:
        """The image as the predictor's own `pixels` reads it, if it has that; else as it is."""
        own = getattr(self.predictor, "pixels", None)
        if own is None:
            return image if color == "bgr" else np.ascontiguousarray(image[..., ::-1])
        return own(image) if color == "bgr" else own(image, color)

    def network_input(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def run(self, inputs: Sequence[np.ndarray]) -> list[Any]:
        return list(self.predictor(list(inputs)))

    def finish(self, detections: Any, size: tuple[int, int]) -> Any:
        return detections


def stages_of(predictor: Any) -> Stages:
    """`predictor` itself if it can be called in parts."""
    return predictor if hasattr(predictor, "network_input") else WholeCalls(predictor)


def run_each(stages: Stages, inputs: Sequence[Any]) -> list[Any]:
    """As `stages.run`, with the exception in the place of what was found for each image that fails by itself."""
    try:
        return stages.run(inputs)
    except Exception as error:
        if len(inputs) == 1:
            return [error]
        return [found for each in inputs for found in run_each(stages, [each])]
