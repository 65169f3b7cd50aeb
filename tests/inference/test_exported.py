"""An exported file in the place of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.inference.exported import ExportedDetector
from engine.runtime import Detector
from engine.structures import ImageBatch
from tests.runtime.conftest import SCORES, write_onnx


@pytest.fixture
def detector(tmp_path: Path) -> Detector:
    return Detector(write_onnx(tmp_path / "model.onnx"))


def test_images_as_read_of_any_size(detector: Detector) -> None:
    """All detections, not only those above the thresholds."""
    images = [torch.full((3, 40, 60), 255, dtype=torch.uint8), torch.full((3, 90, 30), 51, dtype=torch.uint8)]
    model = ExportedDetector(detector)
    for given in (images, ImageBatch.from_list(images, 32)):
        for image, share, found in zip(images, (1, 0.2), model.detect(given), strict=True):
            assert found.size == tuple(image.shape[1:]) and found.labels.tolist() == [0, 1, 0, 1]
            assert found.scores.numpy() == pytest.approx(SCORES * share)
            (expected,) = detector.find([image.permute(1, 2, 0).numpy()])
            assert np.array_equal(found.boxes.numpy(), expected.boxes)
    assert not list(model.parameters()) and not model.training
