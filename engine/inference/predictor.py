"""Detection in single images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.image_file import read_image
from engine.structures import CONTINUOUS, Detections, ImageBatch, PixelConvention, Targets

Image = np.ndarray | str | Path


class ImagePredictor:
    """Images in, thresholded detections out.

    Args:
        model: in evaluation mode, on `device`.
        transform: the test transform of `data.transforms`.
        device: where the model lives.
        class_names: names of labels 0..K-1.
        thresholds: score threshold by class name; a class that is not named keeps every detection from
            `default_threshold` on.
        default_threshold: see `thresholds`.
        size_divisibility: of the padded image.
        convention: what the sides of boxes mean.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: Callable[[np.ndarray, Targets], tuple[Tensor, Targets]],
        device: torch.device,
        class_names: Sequence[str],
        thresholds: Mapping[str, float] | None = None,
        default_threshold: float = 0.0,
        size_divisibility: int = 0,
        convention: PixelConvention = CONTINUOUS,
    ) -> None:
        self.model, self.transform, self.device = model, transform, device
        self.class_names = list(class_names)
        self.size_divisibility, self.convention = size_divisibility, convention
        thresholds = thresholds or {}
        self.thresholds = torch.tensor([thresholds.get(name, default_threshold) for name in self.class_names])

    def __call__(self, image: Image | Sequence[Image]) -> Detections | list[Detections]:
        """Detections in the coordinates of the image given, by falling score; a list for a list.

        Args:
            image: BGR uint8 (H, W, 3), a path, or a list of either.

        Raises:
            InputError: a path that cannot be read.
            ValueError: an array of another shape or type.
        """
        if isinstance(image, (list, tuple)):
            return [self._detect(item) for item in image]
        return self._detect(image)

    @torch.inference_mode()
    def _detect(self, image: Image) -> Detections:
        pixels = read_image(Path(image)) if isinstance(image, (str, Path)) else image
        if (
            not isinstance(pixels, np.ndarray)
            or pixels.dtype != np.uint8
            or pixels.shape[2:] != (3,)
            or 0 in pixels.shape
        ):
            raise ValueError("an image must be a path or a BGR uint8 array of shape (H, W, 3), not empty")
        size = pixels.shape[:2]
        nothing = Targets.empty(image_id=0, size=size, original_size=size)
        tensor, _ = self.transform(pixels, nothing)
        batch = ImageBatch.from_list([tensor], self.size_divisibility).to(self.device)
        detections = self.model.detect(batch)[0].to("cpu").resize(size, self.convention)
        return detections[detections.scores >= self.thresholds[detections.labels]]
