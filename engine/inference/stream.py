"""Detection in a stream of images: they are read, looked at and used at the same time, in threads, in their order."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np

from engine.data.image_file import collected_damage, report_damage
from engine.errors import shown
from engine.inference.stages import run_each, stages_of

_PATIENCE = 1.0
"""Seconds that closing a stream waits for the next image of the caller, which may be that of a camera."""


@dataclass
class Outcome:
    """What became of one image of a stream.

    Attributes:
        image: as given.
        pixels: (H, W, C) as read, see `ImagePredictor.pixels`; None if it could not be read.
        detections: None if there was an error.
        error: why it could not be read or looked at.
        damage: what is odd about a file that was read nevertheless, see `data.image_file.collected_damage`.
    """

    image: Any
    pixels: np.ndarray | None = None
    detections: Any = None
    error: Exception | None = None
    damage: list[str] = field(default_factory=list)


def predict_iter(
    predictor: Any,
    images: Iterable[Any],
    batch_size: int | None = None,
    workers: int = 2,
    on_error: Literal["raise", "yield"] = "raise",
    color: str = "bgr",
) -> Iterator[Any]:
    """The detections of each image, in order; see `detect_stream`.

    Args:
        on_error: "raise" raises the error of an image that cannot be read or looked at in its turn; "yield" gives the
            exception in the place of its detections, and goes on.
    """
    if on_error not in ("raise", "yield"):
        raise ValueError(f'on_error must be "raise" or "yield", not {shown(on_error)}')
    return _detections(detect_stream(predictor, images, batch_size, workers, color), on_error == "raise")


def _detections(outcomes: Iterator[Outcome], raises: bool) -> Iterator[Any]:
    try:
        for outcome in outcomes:
            for line in outcome.damage:
                report_damage(line)
            if outcome.error is not None and raises:
                raise outcome.error
            yield outcome.error or outcome.detections
    finally:
        outcomes.close()


def detect_stream(
    predictor: Any, images: Iterable[Any], batch_size: int | None = None, workers: int = 2, color: str = "bgr"
) -> Iterator[Outcome]:
    """What becomes of each image, in order.

    One thread takes the images from `images`, others read and prepare them, another runs the network (one for each copy
    of the model), while the caller uses what was found. At most three batches (one more for each further copy) are
    under way, so `images` may be endless; nothing is taken from it before the first result is asked for. An exception
    of `images` is raised after the results of the images before it. Whoever stops early closes the generator (leaving a
    `for` loop does so in CPython), which ends the threads.

    Args:
        predictor: `Predictor`, or whatever else takes lists of images; see `inference.stages`.
        images: any iterable of what the predictor takes; it is used in another thread.
        batch_size: images that go through the network together; None: as the predictor does. A camera needs 1, since an
            incomplete batch waits for the next image.
        workers: threads that read and prepare images.
        color: the order of the channels of arrays and tensors.
    """
    if isinstance(images, (str, bytes, os.PathLike)) or not isinstance(images, Iterable):
        raise ValueError(f"expected an iterable of images, not {shown(images)}; call the predictor with a single image")
    stages = stages_of(predictor)
    batch_size = stages.batch_size if batch_size is None else batch_size
    if min(batch_size, workers) < 1:
        raise ValueError("batch_size and workers must be at least 1")
    return _Stream(stages, images, batch_size, workers, color).outcomes(getattr(predictor, "num_copies", 1))


@dataclass
class _Prepared:
    outcome: Outcome
    network_input: Any = None


class _Stream:
    """The threads of one stream and what lies between them."""

    def __init__(self, stages: Any, images: Iterable[Any], batch_size: int, workers: int, color: str) -> None:
        self.stages, self.images, self.batch_size = stages, images, batch_size
        self.workers, self.color = workers, color
        self._is_closed = False
        self._batches: SimpleQueue[Future | BaseException | None] = SimpleQueue()  # None: there are no more

    def outcomes(self, num_runs: int) -> Iterator[Outcome]:
        self._slots = threading.Semaphore(self.batch_size * (num_runs + 2))  # one for each image under way
        self._readers = ThreadPoolExecutor(self.workers, "read-images")
        self._runners = ThreadPoolExecutor(num_runs, "run-network")
        taker = threading.Thread(target=self._take_images, name="take-images", daemon=True)
        taker.start()
        try:
            while (batch := self._batches.get()) is not None:
                if isinstance(batch, BaseException):
                    raise batch
                for prepared, found in batch.result():
                    self._slots.release()
                    yield self._finished(prepared.outcome, found)
        finally:
            self._is_closed = True
            self._slots.release()
            taker.join(_PATIENCE)  # within `images`, it ends as soon as that returns
            for pool in (self._readers, self._runners):
                pool.shutdown(cancel_futures=True)

    def _take_images(self) -> None:
        batch: list[Future] = []
        failure: BaseException | None = None
        try:
            images = iter(self.images)
            while self._slots.acquire() and not self._is_closed:
                image = next(images, self)
                if image is self or self._is_closed:
                    break
                batch.append(self._readers.submit(self._prepared, image))
                if len(batch) == self.batch_size:
                    self._batches.put(self._runners.submit(self._found, batch))
                    batch = []
        except BaseException as error:
            failure = error
        if batch and not self._is_closed:
            self._batches.put(self._runners.submit(self._found, batch))
        self._batches.put(failure)

    def _prepared(self, image: Any) -> _Prepared:
        with collected_damage() as damage:
            try:
                pixels = self.stages.pixels(image, self.color)
                return _Prepared(Outcome(image, pixels, damage=damage), self.stages.network_input(pixels))
            except Exception as error:
                return _Prepared(Outcome(image, error=error, damage=damage))

    def _found(self, batch: list[Future]) -> list[tuple[_Prepared, Any]]:
        """Each image of a batch with what the network found in it, or the exception."""
        images = [each.result() for each in batch]
        inputs = [each.network_input for each in images if each.outcome.error is None]
        found = iter(run_each(self.stages, inputs) if inputs else [])
        return [(each, each.outcome.error or next(found)) for each in images]

    def _finished(self, outcome: Outcome, found: Any) -> Outcome:
        if isinstance(found, Exception):
            return replace(outcome, error=found)
        try:
            return replace(outcome, detections=self.stages.finish(found, outcome.pixels.shape[:2]))
        except Exception as error:
            return replace(outcome, error=error)
