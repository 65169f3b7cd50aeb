from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from engine.assembly.detector import usable_thresholds
from engine.data import transforms
from engine.data.reading import Reading
from engine.errors import InputError
from engine.inference.augment import AugmentedDetector, View
from engine.inference.predictor import ImagePredictor
from engine.layers.voting import vote
from engine.modeling.selection import Selection
from engine.structures import Detections, ImageBatch

SCORES = [0.9, 0.6, 0.4, 0.2]


class Corner(nn.Module):
    """Finds a quarter of each image four times: classes 0, 1, 0, 1 with falling scores."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[tuple[int, int]]] = []

    def detect(self, images: ImageBatch) -> list[Detections]:
        self.batches.append(images.sizes)
        found = []
        for height, width in images.sizes:
            boxes = torch.tensor([[0.0, 0.0, width / 2, height / 2]]).repeat(4, 1)
            found.append(Detections(boxes, torch.tensor(SCORES), torch.tensor([0, 1, 0, 1]), (height, width)))
        return found


def _predictor(thresholds: dict[str, float] | None = None, default: float = 0.0, **options: Any) -> ImagePredictor:
    transform, names = transforms.test_transform(16, 64, [0.0] * 3, [1.0] * 3), ["hole", "stain"]
    return ImagePredictor(Corner(), transform, torch.device("cpu"), names, thresholds, default, 32, **options)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "bild ü.png"
    path.write_bytes(cv2.imencode(".png", np.full((40, 60, 3), 7, np.uint8))[1].tobytes())
    return path


def test_array_path_and_list_agree(picture: Path) -> None:
    predict = _predictor()
    image = np.full((40, 60, 3), 7, np.uint8)
    found = [predict(image), predict(picture), predict(str(picture)), *predict([image, picture])]
    for each in found:
        assert each.size == (40, 60) and each.boxes.tolist() == [[0, 0, 30, 20]] * 4
        assert each.scores.tolist() == pytest.approx(SCORES)
    assert predict([]) == [] and len(predict([image])) == 1


def test_images_of_one_size_go_together_and_come_back_in_order() -> None:
    transform = transforms.test_transform(16, 64, [0.0] * 3, [1.0] * 3)
    model = Corner()
    predict = ImagePredictor(model, transform, torch.device("cpu"), ["hole", "stain"], batch_size=3)
    sizes = [(16, 16), (20, 40), (32, 32), (16, 16)]  # (height, width); as resized 16 x 16, 16 x 32, 16 x 16, 16 x 16
    found = predict([np.zeros((*size, 3), np.uint8) for size in sizes])
    assert [each.size for each in found] == sizes
    assert model.batches == [[(16, 16), (16, 16)], [(16, 32)], [(16, 16)]]  # two windows of at most three images


def test_prepare_run_and_finish_are_what_a_call_does(picture: Path) -> None:
    predict = _predictor({"hole": 0.5, "stain": 0.5})
    tensor, size = predict.prepare(picture)
    assert tensor.shape == (3, 16, 24) and size == (40, 60)
    (raw,) = predict.run([tensor])
    assert raw.size == (16, 24) and len(raw) == 4
    by_hand, called = predict.finish(raw, size), predict(picture)
    assert torch.equal(by_hand.boxes, called.boxes) and len(called) == 2


@pytest.mark.parametrize(
    ("thresholds", "default", "kept"),
    [
        (None, 0.0, [0.9, 0.6, 0.4, 0.2]),
        (None, 0.5, [0.9, 0.6]),
        ({"hole": 0.4, "stain": 0.7}, 0.0, [0.9, 0.4]),  # "from the threshold on"
        ({"stain": 0.1}, 0.5, [0.9, 0.6, 0.2]),
        ({"a class of another model": 0.0}, 0.95, []),
    ],
)
def test_thresholds_by_class(thresholds: dict[str, float] | None, default: float, kept: list[float]) -> None:
    found = _predictor(thresholds, default)(np.zeros((20, 20, 3), np.uint8))
    assert found.scores.tolist() == pytest.approx(kept)


def test_classes_without_a_threshold_are_left_to_the_default() -> None:
    stored = {"classes": {"hole": {"threshold": 0.4}, "stain": {"threshold": None, "reason": "no ground truth"}}}
    assert usable_thresholds(stored) == {"hole": 0.4}
    assert usable_thresholds(None) == usable_thresholds({}) == {}


@pytest.mark.parametrize(
    "image",
    [
        np.zeros(20, np.uint8),
        np.zeros((20, 20, 4), np.uint8),
        np.zeros((20, 20, 3), bool),
        np.zeros((20, 20, 3), np.complex64),
        np.zeros((0, 20, 3), np.uint8),
        torch.zeros(20, 20, 3),
    ],
)
def test_what_is_no_image(image: object) -> None:
    with pytest.raises(ValueError, match="BGR uint8"):
        _predictor()(image)


@pytest.mark.filterwarnings("error")
def test_an_array_that_must_not_be_written_to() -> None:
    """As NumPy makes it of a Pillow image or a file mapped into memory."""
    image = np.full((20, 20, 3), 7, np.uint8)
    expected = _predictor().prepare(image)[0]
    image.setflags(write=False)
    assert torch.equal(_predictor().prepare(image)[0], expected) and (image == 7).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32])
@pytest.mark.parametrize("shape", [(40, 60), (40, 60, 3)])
def test_deep_arrays_and_files_become_the_same(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    image = np.linspace(96, 4016, int(np.prod(shape))).reshape(shape).astype(dtype)
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), image, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    predict = _predictor(reading=Reading((96.0, 4016.0)))
    (from_array, size), (from_file, _) = predict.prepare(image), predict.prepare(path)
    assert torch.equal(from_array, from_file) and size == (40, 60) and len(predict(image)) == 4
    as_uint8 = np.rint((image.astype(float) - 96) * 255 / 3920).astype(np.uint8)
    difference = (from_array - predict.prepare(as_uint8)[0]).abs()
    assert 0.1 < difference.max() < 1  # of 255: an 8-bit copy loses the fractions only


class Seen(nn.Module):
    """Keeps what the network sees."""

    selection = Selection()

    def __init__(self) -> None:
        super().__init__()
        self.images: list[torch.Tensor] = []

    def detect(self, images: ImageBatch | list[torch.Tensor]) -> list[Detections]:
        self.images += images.tensor if isinstance(images, ImageBatch) else images
        nothing = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)
        return [Detections(*nothing, tuple(image.shape[-2:])) for image in self.images[-len(images) :]]


@pytest.mark.parametrize("is_augmented", [False, True])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_one_of_4096_levels_reaches_the_network(tmp_path: Path, is_augmented: bool, dtype: type) -> None:
    """Each of 4096 values, from the file to the network, is another number than its neighbours."""
    values = np.arange(4096).reshape(64, 64).astype(dtype)
    cv2.imwrite(str(tmp_path / "a.tif"), values)
    model, transform = Seen(), transforms.test_transform(64, 64, [114.0] * 3, [1.0] * 3)
    detector: nn.Module = model
    if is_augmented:
        normalize, transform = transform.steps[-1].pixels, transforms.Transform([])
        detector = AugmentedDetector(model, [View(64, 64)], normalize, partial(vote, iou_thresh=0.5))
    predict = ImagePredictor(detector, transform, torch.device("cpu"), ["hole"], reading=Reading((0.0, 4095.0)))
    predict([tmp_path / "a.tif", values])
    assert len(model.images) == 2 and torch.equal(*model.images)
    for channel in model.images[0]:
        steps = channel.flatten().diff()
        assert (steps > 0.06).all() and steps.sum() == 255  # of 255 / 4095 = 0.0623
    assert predict.pixels(values).max() == 255  # the image itself is not normalised in place


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.jpg"):
        _predictor()(tmp_path / "none.jpg")
