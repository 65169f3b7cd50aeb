"""Detection in single images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.any_image import any_image
from engine.data.reading import DEFAULT, Reading
from engine.data.transforms import Transform
from engine.device import explaining_out_of_memory
from engine.inference.stream import predict_iter
from engine.structures import CONTINUOUS, Detections, ImageBatch, PixelConvention

Image = Any
"""Whatever `engine.data.any_image.any_image` takes."""
LESS_MEMORY = "lower TEST.IMS_PER_BATCH or INPUT.MIN_SIZE_TEST, or set MODEL.DEVICE cpu"


class ImagePredictor:
    """Images in, thresholded detections out: `prepare`, `run` and `finish`. It keeps no state, so threads may share it.

    Args:
        model: in evaluation mode, on `device`.
        transform: applied to each image as read.
        device: where the model lives.
        class_names: names of labels 0..K-1.
        thresholds: score threshold by class name, from which detections are kept.
        default_threshold: for classes that are not in `thresholds`.
        size_divisibility: images are padded to a multiple of this.
        convention: what the sides of boxes mean.
        batch_size: limit on the images that go through the model at once.
        reading: how images become pixels, files and arrays alike.
    """

    def __init__(
        self,
        model: nn.Module,
        transform: Transform,
        device: torch.device,
        class_names: Sequence[str],
        thresholds: Mapping[str, float] | None = None,
        default_threshold: float = 0.0,
        size_divisibility: int = 0,
        convention: PixelConvention = CONTINUOUS,
        batch_size: int = 1,
        reading: Reading = DEFAULT,
    ) -> None:
        self.model, self.transform, self.device = model, transform, device
        self.class_names = list(class_names)
        self.size_divisibility, self.convention, self.batch_size = size_divisibility, convention, batch_size
        self.reading = reading
        thresholds = thresholds or {}
        self.thresholds = torch.tensor([thresholds.get(name, default_threshold) for name in self.class_names])

    def __call__(self, image: Image | Sequence[Image], color: str = "bgr") -> Detections | list[Detections]:
        """Detections in the coordinates of the image given, highest score first; a list for a list.

        Images of a list that have the same size after the transform go through the model together, at most `batch_size`
        at once. Others do not, since padding changes what a model finds.

        Args:
            image: an array, (H, W, C) or grey (H, W), uint8 or of another real type, which the range of values brings
                to 0..255; a path; the bytes of an image file; a tensor (C, H, W); an image of Pillow; a list of these.
            color: the order of the channels of arrays and tensors, "bgr" or "rgb".

        Raises:
            InputError: a file cannot be read.
            ValueError: it is no image.
        """
        if not isinstance(image, (list, tuple)):
            return self([image], color)[0]
        # So that a long list is not held in memory.
        windows = [image[start : start + self.batch_size] for start in range(0, len(image), self.batch_size)]
        detect = partial(self._detect_in, color=color)
        if self.num_copies == 1 or len(windows) == 1:
            return [found for window in windows for found in detect(window)]
        with ThreadPoolExecutor(self.num_copies) as threads:
            return [found for each in threads.map(detect, windows) for found in each]

    def _detect_in(self, images: Sequence[Image], color: str) -> list[Detections]:
        prepared = [self.prepare(each, color) for each in images]
        raw = self.run([tensor for tensor, _ in prepared])
        return [self.finish(each, size) for each, (_, size) in zip(raw, prepared, strict=True)]

    def predict_iter(
        self,
        images: Iterable[Image],
        batch_size: int | None = None,
        workers: int = 2,
        on_error: Literal["raise", "yield"] = "raise",
        color: str = "bgr",
    ) -> Iterator[Detections | Exception]:
        """The detections of each image of any iterable, in order, read and looked at meanwhile.

        See `inference.stream.predict_iter` for the arguments; `inference.stream.detect_stream` also gives the pixels.

        Example:
            for path, found in zip(paths, predictor.predict_iter(paths)):
                print(path, len(found))
        """
        return predict_iter(self, images, batch_size, workers, on_error, color)

    @property
    def num_copies(self) -> int:
        """How many threads may run the network to advantage: the copies of the model, see `inference.replicas`."""
        return getattr(self.model, "num_copies", 1)

    def prepare(self, image: Image, color: str = "bgr") -> tuple[Tensor, tuple[int, int]]:
        """What the model sees of an image, (C, H', W'), and the (height, width) of the image itself."""
        pixels = self.pixels(image, color)
        return self.network_input(pixels), pixels.shape[:2]

    def pixels(self, image: Image, color: str = "bgr") -> np.ndarray:
        """The image as pixels (H, W, C), uint8 or float32 in 0..255; see `engine.data.any_image.any_image`."""
        return any_image(image, self.reading, color)

    def network_input(self, pixels: np.ndarray) -> Tensor:
        """What the model sees of what `pixels` returned, (C, H', W')."""
        return self.transform(pixels)[0]

    def detect(self, pixels: np.ndarray) -> Detections:
        """Detections in what `pixels` returned, so that a file is not read twice to be drawn."""
        return self.finish(self.run([self.network_input(pixels)])[0], pixels.shape[:2])

    @torch.inference_mode()
    def run(self, tensors: Sequence[Tensor]) -> list[Detections]:
        """Detections in prepared images, in their pixels and not thresholded, on the CPU.

        Raises:
            InputError: the GPU ran out of memory.
        """
        groups: dict[torch.Size, list[int]] = {}
        for index, tensor in enumerate(tensors):
            groups.setdefault(tensor.shape, []).append(index)
        found: dict[int, Detections] = {}
        for indices in groups.values():
            with explaining_out_of_memory(LESS_MEMORY):
                raw = self.model.detect(self._batch([tensors[index] for index in indices]))
                found |= zip(indices, (each.to("cpu") for each in raw), strict=True)
        return [found[index] for index in range(len(tensors))]

    def _batch(self, tensors: Sequence[Tensor]) -> ImageBatch | list[Tensor]:
        if getattr(self.model, "detects_one_by_one", False):  # stacking would copy a very large image
            return [tensor.to(self.device) for tensor in tensors]
        return ImageBatch.from_list(tensors, self.size_divisibility).to(self.device)

    def finish(self, detections: Detections, size: tuple[int, int]) -> Detections:
        """Those of `detections` that reach the threshold of their class, in pixels of an image of `size`."""
        detections = detections.resize(size, self.convention)
        return detections[detections.scores >= self.thresholds[detections.labels]]
