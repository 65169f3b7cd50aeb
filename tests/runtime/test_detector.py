"""An exported file on images: sizes, groups, thresholds, tiles, and what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import InputError
from engine.runtime import Detections, Detector
from engine.runtime.card import ModelCard, TileRule
from tests.runtime.conftest import LABELS, SCORES, SHARES, with_shape

Write = Callable[..., Path]
WHITE = np.full((40, 60, 3), 255, np.uint8)


def expected(size: tuple[int, int], kept: slice | list[int] = slice(0, 2)) -> np.ndarray:
    height, width = size
    return (SHARES * np.float32([width, height, width, height]))[kept]


def test_an_array_a_path_and_lists(write: Write, tmp_path: Path) -> None:
    detector = Detector(write())
    picture = tmp_path / "bild ü.png"
    picture.write_bytes(cv2.imencode(".png", WHITE)[1].tobytes())
    for found in (detector(WHITE), detector(picture), detector(str(picture)), *detector([WHITE, picture])):
        assert isinstance(found, Detections) and found.size == (40, 60)
        assert found.boxes == pytest.approx(expected((40, 60)), abs=1e-4)  # thresholds 0.5 and 0.3
        assert found.scores.tolist() == pytest.approx([0.9, 0.6]) and found.labels.tolist() == [0, 1]
        assert found.boxes.dtype == found.scores.dtype == np.float32 and found.labels.dtype == np.int64
    assert detector([]) == [] and len(detector([WHITE])) == 1
    assert detector.class_names == ["hole", "stain"] and detector.thresholds.tolist() == pytest.approx([0.5, 0.3])
    assert len(detector.detect(detector.pixels(picture))) == 2


@pytest.mark.parametrize(("threshold", "kept"), [(None, 2), (0.0, 4), (0.4, 3), (0.95, 0)])
def test_one_threshold_for_all(write: Write, threshold: float | None, kept: int) -> None:
    found = Detector(write(), threshold)(WHITE)
    assert found.scores.tolist() == pytest.approx(SCORES[:kept].tolist())
    assert found.labels.tolist() == LABELS[:kept].tolist()


def test_images_of_all_sizes_in_their_order(write: Write) -> None:
    sizes = [(16, 16), (20, 40), (32, 32), (1, 90), (16, 16), (90, 1), (333, 77)]
    values = [255, 250, 245, 240, 235, 230, 225]
    images = [np.full((*size, 3), value, np.uint8) for size, value in zip(sizes, values, strict=True)]
    for batch_size in (1, 3):
        detector = Detector(write(), threshold=0.0, batch_size=batch_size)
        for size, value, found in zip(sizes, values, detector(images), strict=True):
            assert found.size == size and found.scores == pytest.approx(SCORES * value / 255)
            assert found.boxes == pytest.approx(expected(size, slice(None)), abs=1e-3)


def test_a_fixed_batch_is_filled_up(write: Write, card: ModelCard) -> None:
    detector = Detector(write(with_shape(card, batch_size=4)), threshold=0.0)
    assert detector.batch_size == 4
    for count in (1, 4, 6):
        found = detector([WHITE // 5 * k for k in range(count)])
        assert [each.scores[0] for each in found] == pytest.approx([0.9 * k / 5 for k in range(count)])


def test_a_fixed_size_of_the_network(write: Write, card: ModelCard) -> None:
    detector = Detector(write(with_shape(card, input_size=(32, 64), batch_size=1)), threshold=0.0)
    for size in ((40, 60), (16, 64), (100, 100)):
        assert detector(np.full((*size, 3), 255, np.uint8)).boxes == pytest.approx(
            expected(size, slice(None)), abs=1e-3
        )
    with pytest.raises(InputError, match=r"takes up to 32 x 64 .* 100 x 40 .* scaled to 40 x 16"):
        Detector(write(with_shape(card, input_size=(32, 64))), threshold=0.0)(np.zeros((100, 40, 3), np.uint8))


def test_a_fixed_size_of_images(write: Write, card: ModelCard) -> None:
    detector = Detector(write(with_shape(card, image_size=(40, 60))))
    assert detector(WHITE).boxes == pytest.approx(expected((40, 60)))
    with pytest.raises(InputError, match=r"images of 40 x 60 \(height x width\) pixels, but this one has 60 x 40"):
        detector(WHITE.transpose(1, 0, 2))


def test_grey_deep_and_other_channels(write: Write, card: ModelCard) -> None:
    """Grey becomes colour; more than 8 bits need a network for floats, which gets them unrounded."""
    grey = np.full((40, 60), 255, np.uint8)
    assert len(Detector(write())(grey)) == len(Detector(write())(grey[..., None])) == 2
    deep = np.full((40, 60), 3000, np.uint16)
    images = replace(card.images, value_range=(0.0, 4000.0))
    with pytest.raises(InputError, match="takes images of 8 bits"):
        Detector(write(replace(card, images=images)))(deep)
    detector = Detector(write(replace(card, images=replace(images, pixels="float32"))))
    assert detector(deep).scores.tolist() == pytest.approx([0.9 * 0.75, 0.6 * 0.75])
    assert detector(WHITE).scores.tolist() == pytest.approx([0.9, 0.6])
    for channels in (1, 4):
        detector = Detector(write(replace(card, images=replace(card.images, channels=channels))))
        assert len(detector(np.full((40, 60, channels), 255, np.uint8))) == 2
    with pytest.raises(ValueError, match=r"\(H, W, 4\)"):
        detector(WHITE)


@pytest.mark.parametrize("image", [np.zeros(20, np.uint8), np.zeros((4, 4, 2)), np.zeros((0, 4, 3), np.uint8), None])
def test_what_is_no_image(write: Write, image: object) -> None:
    with pytest.raises(ValueError, match="BGR uint8"):
        Detector(write())(image)


def test_inclusive_boxes_keep_their_last_pixel(write: Write, card: ModelCard) -> None:
    """(x2 - 1) * ratio + 1, see `structures.PixelConvention`: the image of 40 x 60 was scaled to 16 x 24."""
    detector = Detector(write(replace(card, images=replace(card.images, box_extent=1.0))), threshold=0.9)
    assert detector(WHITE).boxes.tolist() == [[0, 0, pytest.approx((12 - 1) * 2.5 + 1), pytest.approx(7 * 2.5 + 1)]]


def test_tiles(write: Write, card: ModelCard) -> None:
    """Two tiles of 40 pixels: what is cut by the border between them counts half."""
    tiles = TileRule(40, 8, False, (0.0, 0.0, 0.0), "nms", {"iou_thresh": 0.5, "over_smaller": False})
    detector = Detector(write(replace(card, tiles=tiles)), threshold=0.0, batch_size=2)
    found = detector(np.full((40, 72, 3), 255, np.uint8))
    assert found.size == (40, 72)
    assert [0, 0, 20, 20] in found.boxes.tolist() and [52, 0, 72, 20] in found.boxes.tolist()
    cut = found[(found.boxes[:, 2] == 40) & (found.boxes[:, 1] == 0)]
    assert cut.boxes.tolist() == [[20, 0, 40, 20]] and cut.scores.tolist() == pytest.approx([0.3])
    assert (np.diff(found.scores) <= 0).all()


def test_threads_share_a_detector(write: Write) -> None:
    detector = Detector(write(), threshold=0.0, threads=1)
    gate = threading.Barrier(8)

    def look(value: int) -> float:
        gate.wait(timeout=60)
        return [detector(np.full((40, 60, 3), value, np.uint8)).scores[0] for _ in range(20)][-1]

    values = [255 - 20 * k for k in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(look, values)) == pytest.approx([0.9 * value / 255 for value in values])


def test_options_that_make_no_sense(write: Write) -> None:
    path = write()
    with pytest.raises(InputError, match="between 0 and 1, not 3"):
        Detector(path, threshold=3)
    with pytest.raises(InputError, match="threads must be at least 0"):
        Detector(path, threads=-1)
    with pytest.raises(InputError, match="(no such|no) device"):
        Detector(path, device="abacus")


def test_a_device_that_is_not_there(write: Write) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it is there")
    with pytest.raises(InputError, match="CUDAExecutionProvider here|no device cuda:1"):
        Detector(write(), device="cuda:1")
