"""An exported file in the place of a model: in a test, in the Predictor.

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from engine.runtime.detector import Detector
from engine.structures import Detections, ImageBatch


class ExportedDetector(nn.Module):
    """Takes images as read and returns detections, as `inference.tiled.TiledDetector` does. It has no parameters.

    Args:
        detector: the exported file; its thresholds are not applied.
    """

    detects_one_by_one = True
    """Images need not be of one size, nor be stacked."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector, self.class_names = detector, tuple(detector.class_names)
        self.eval()

    def detect(self, images: ImageBatch | Sequence[Tensor]) -> list[Detections]:
        """Detections of each image in its own pixels, highest score first.

        Args:
            images: N images as read (C, H_i, W_i), uint8 or float32, or a batch of such.
        """
        if isinstance(images, ImageBatch):
            images = images.unpadded()
        pixels = [np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()) for image in images]  # (H_i, W_i, C)
        return [
            Detections(*map(torch.from_numpy, (found.boxes, found.scores, found.labels)), found.size)
            for found in self.detector.find(pixels)
        ]

    forward = detect  # what a model in evaluation mode does
