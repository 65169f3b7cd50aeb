from __future__ import annotations

import gc
import itertools
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.image_file import collected_damage
from engine.errors import InputError
from engine.inference.async_predictor import AsyncPredictor
from engine.inference.replicas import Replicas
from engine.inference.stream import detect_stream, predict_iter
from engine.runtime.detector import Detector
from engine.structures import ImageBatch
from tests.inference.test_async_predictor import Doubling
from tests.inference.test_predictor import Corner, _predictor
from tests.runtime.conftest import CARD, write_onnx


def threads_of_streams() -> list[str]:
    names = ("read-images", "run-network", "take-images")
    return [each.name for each in threading.enumerate() if each.name.startswith(names)]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert threads_of_streams() == []


@settings(max_examples=25)
@given(st.integers(0, 20), st.integers(1, 5), st.integers(1, 3))
def test_order_and_batches(number: int, batch_size: int, workers: int) -> None:
    doubling = Doubling()
    images = [k for k in range(number + 1) if k != 13]
    found = list(predict_iter(doubling, iter(images), batch_size, workers))
    assert found == [2 * k for k in images]
    assert doubling.batches == [images[k : k + batch_size] for k in range(0, len(images), batch_size)]


def test_nothing_is_taken_before_it_is_asked_for_nor_far_ahead() -> None:
    taken: list[int] = []
    endless = (taken.append(k) or k for k in itertools.count(20))
    results = predict_iter(Doubling(), endless, batch_size=4)
    time.sleep(0.05)
    assert taken == [] and threads_of_streams() == []
    for k in range(20, 40):
        assert next(results) == 2 * k
        time.sleep(0.005)  # the threads may run ahead as far as they like
        assert len(taken) <= k - 20 + 1 + 3 * 4
    results.close()
    assert threads_of_streams() == []


def test_leaving_a_loop_ends_the_threads() -> None:
    for found in predict_iter(Doubling(), itertools.count(20), batch_size=2):
        if found > 50:
            break
    gc.collect()
    assert threads_of_streams() == []


def test_reading_and_the_network_overlap() -> None:
    """The next image is taken while the network is busy with the first."""
    doubling = Doubling(is_open=False)

    def images() -> Iterator[int]:
        yield 1
        yield 2
        doubling.gate.set()
        yield 3

    assert list(predict_iter(doubling, images(), batch_size=1)) == [2, 4, 6]


def test_an_exception_of_the_images_comes_after_the_results_before_it() -> None:
    def images() -> Iterator[int]:
        yield from (1, 2, 3)
        raise KeyError("the camera is gone")

    results = predict_iter(Doubling(), images(), batch_size=2)
    assert [next(results) for _ in range(3)] == [2, 4, 6]
    with pytest.raises(KeyError, match="the camera is gone"):
        next(results)


def test_errors_of_single_images() -> None:
    images = [1, -1, 2, 13, 3, -2]
    found = list(predict_iter(Doubling(), images, batch_size=3, on_error="yield"))
    assert [found[k] for k in (0, 2, 4)] == [2, 4, 6]
    assert [type(found[k]) for k in (1, 3, 5)] == [ValueError, RuntimeError, ValueError]
    results = predict_iter(Doubling(), images, batch_size=3)
    assert next(results) == 2
    with pytest.raises(ValueError, match="-1 cannot be read"):
        next(results)
    assert list(results) == []


def test_a_camera_that_does_not_answer_does_not_hold_up_the_end() -> None:
    is_over = threading.Event()

    def camera() -> Iterator[int]:
        yield 1
        is_over.wait(20)
        yield 2

    results = predict_iter(Doubling(), camera(), batch_size=1)
    assert next(results) == 2  # although there is no second frame yet
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 10
    is_over.set()
    while threads_of_streams():
        time.sleep(0.001)


def test_real_images_are_as_by_calls(tmp_path: Path) -> None:
    sizes = [(16, 16), (20, 40), (32, 32), (16, 16), (40, 20)]
    arrays = [np.full((*size, 3), 7, np.uint8) for size in sizes]
    paths = [tmp_path / f"{k}.png" for k in range(len(sizes))]
    for path, image in zip(paths, arrays, strict=True):
        cv2.imwrite(str(path), image)
    predict = _predictor({"hole": 0.5}, batch_size=2)
    outcomes = list(detect_stream(predict, [*arrays, *paths]))
    for outcome, expected, image in zip(outcomes, predict([*arrays, *paths]), arrays * 2, strict=True):
        assert torch.equal(outcome.detections.boxes, expected.boxes) and outcome.detections.size == expected.size
        assert np.array_equal(outcome.pixels, image) and outcome.error is None
    assert [each.image for each in outcomes[5:]] == paths
    by_rgb = predict.predict_iter([image[..., ::-1] for image in arrays], color="rgb")
    assert [each.size for each in by_rgb] == sizes


def test_what_is_odd_about_a_file_is_reported_to_the_caller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.ones((16, 16), np.float32)
    values[0, 0] = np.nan
    cv2.imwrite(str(tmp_path / "a.tif"), values, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    paths = [tmp_path / "a.tif"]
    with collected_damage() as lines:
        assert len(list(_predictor().predict_iter(paths))) == 1
    assert len(lines) == 1 and "1 samples are NaN" in lines[0]
    (outcome,) = detect_stream(_predictor(), paths)
    assert outcome.damage == lines
    logging.getLogger("engine").addHandler(caplog.handler)
    try:
        list(_predictor().predict_iter(paths))
    finally:
        logging.getLogger("engine").removeHandler(caplog.handler)
    assert "1 samples are NaN" in caplog.text


def test_a_missing_file_is_an_input_error_in_its_place(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    first, missing, last = _predictor().predict_iter([image, tmp_path / "none.jpg", image], on_error="yield")
    assert len(first) == len(last) == 4 and isinstance(missing, InputError) and "none.jpg" in str(missing)


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        ("a.jpg", {}, "an iterable of images"),
        (Path("a.jpg"), {}, "an iterable of images"),
        (b"abc", {}, "an iterable of images"),
        (7, {}, "an iterable of images"),
        ([], {"on_error": "ignore"}, "on_error"),
        ([], {"batch_size": 0}, "at least 1"),
        ([], {"workers": 0}, "at least 1"),
    ],
)
def test_mistakes_in_the_call_are_said_at_once(images: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        predict_iter(Doubling(), images, **options)


class Waiting(Corner):
    """Waits in each call until as many calls as `meeting` has parties are there."""

    meeting = threading.Barrier(2, timeout=20)

    def detect(self, images: ImageBatch) -> Any:
        self.meeting.wait()
        return super().detect(images)

    def __deepcopy__(self, memo: dict[int, Any]) -> Waiting:
        return Waiting()


def test_copies_of_a_model_work_at_the_same_time() -> None:
    predict = _predictor(batch_size=2)
    expected_of = predict([np.zeros((16, 16, 3), np.uint8)])[0]
    predict.model = Replicas(Waiting(), [torch.device("cpu")] * 2)
    assert predict.num_copies == 2
    images = [np.zeros((16, 16 + 2 * k, 3), np.uint8) for k in range(8)]
    for found in (predict(images), list(predict.predict_iter(images))):  # a copy alone would wait in vain
        assert [each.size for each in found] == [image.shape[:2] for image in images]
        assert torch.equal(found[0].boxes, expected_of.boxes)
    used = [len(copy.batches) for copy in predict.model.copies]
    assert min(used) > 0 and sum(used) == 16


def test_an_exported_file_in_a_stream_and_for_many_callers(tmp_path: Path) -> None:
    """Deep images too, which must not be scaled twice."""
    rule = replace(CARD.images, value_range=(0.0, 4000.0), pixels="float32")
    detector = Detector(write_onnx(tmp_path / "a.onnx", replace(CARD, images=rule)))
    images = [np.full((40, 60 + k), 2000 + 100 * k, np.uint16) for k in range(3)] + [np.full((8, 8), 255, np.uint8)]
    expected = detector(images)
    assert len({found.scores[0] for found in expected}) == 4
    with AsyncPredictor(detector) as together:
        answers = [each.result(20) for each in [together.submit(image) for image in images]]
    for found in (answers, list(predict_iter(detector, images, batch_size=3))):
        for ours, theirs in zip(found, expected, strict=True):
            assert np.array_equal(ours.boxes, theirs.boxes) and np.array_equal(ours.scores, theirs.scores)
