"""Frames in; records, pictures and figures out."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from engine.data.image_file import collected_damage
from engine.errors import InputError
from engine.inference.items import LIVE, Item
from engine.inference.records import Record, RecordFile, detections_record, error_record
from engine.inference.sinks import Seen, Sink
from engine.inference.sources import Frame, Reading, read_frames
from engine.inference.stages import stages_of
from engine.inference.stream import detect_stream
from engine.log import get_logger
from engine.tables import aligned_table
from engine.visualize.draw import draw_detections

_MOST_LATENCIES = 100_000
"""The last so many count, for runs without an end."""

logger = get_logger(__name__)


class FramePredictor(Protocol):
    """What is used of a predictor; one that can be called in parts, see `inference.stages`, lets images overlap."""

    class_names: Sequence[str]
    thresholds: Any

    def __call__(self, images: list[np.ndarray]) -> list[Any]: ...
    def pixels(self, image: Any) -> np.ndarray: ...
    def detect(self, pixels: np.ndarray) -> Any: ...


@dataclass
class Tally:
    """What a run has seen.

    Attributes:
        class_names, thresholds: by label.
        detections, images: (K,) how many of each class, and in how many images; `num_found` have any.
        num_seen, num_unreadable, num_odd: images or frames; odd ones could be read with a warning.
        first_error: of the unreadable ones.
        seconds: since the first frame was asked for.
    """

    class_names: Sequence[str]
    thresholds: Any
    num_seen: int = 0
    num_found: int = 0
    num_unreadable: int = 0
    num_odd: int = 0
    first_error: str = ""
    seconds: float = 0.0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_LATENCIES))

    def __post_init__(self) -> None:
        self.detections = np.zeros(len(self.class_names), np.int64)
        self.images = np.zeros(len(self.class_names), np.int64)

    def add(self, labels: Any, latency: float) -> None:
        """Count an image with detections of these labels, which took so many seconds."""
        counts = np.bincount(np.asarray(labels, np.int64), minlength=len(self.class_names))  # (K,)
        self.detections += counts
        self.images += counts > 0
        self.num_seen += 1
        self.num_found += bool(counts.any())
        self.latencies.append(latency)

    def table(self) -> str:
        """Detections of each class, the images they are in, and the threshold they passed."""
        rows = [
            [name, str(self.detections[k]), str(self.images[k]), f"{float(self.thresholds[k]):.3f}"]
            for k, name in enumerate(self.class_names)
        ]
        rows.append(["all", str(self.detections.sum()), str(self.num_found), ""])
        return aligned_table(["class", "detections", "images", "threshold"], rows)

    def remarks(self) -> str:
        """`, 2 of them with a warning, 1 unreadable skipped`."""
        warned = f", {self.num_odd} of them with a warning" if self.num_odd else ""
        return warned + (f", {self.num_unreadable} unreadable skipped" if self.num_unreadable else "")

    def pace(self) -> str:
        """Frames per second over all, and how long reading and detecting took (p50, p90, p99)."""
        if not self.latencies:
            return "nothing was detected in"
        p50, p90, p99 = 1000 * np.percentile(np.array(self.latencies), (50, 90, 99))
        rate = self.num_seen / max(self.seconds, 1e-9)
        return f"{rate:.1f} per second; an image took {p50:.1f} ms (p50), {p90:.1f} ms (p90), {p99:.1f} ms (p99)"


def use_frames(
    predictor: FramePredictor,
    results: Iterator[FrameResult],
    sinks: Sequence[Sink],
    records: RecordFile | None = None,
    total: int | None = None,
    stop: threading.Event | None = None,
) -> Tally:
    """Give each frame to all `sinks`, and then its record to `records`.

    So what has a record is complete. What cannot be read is named in a warning and recorded, and the run goes on. The
    sinks are closed, whatever happens.

    Args:
        results: from `detect_frames` or `one_by_one`, of this predictor.
        total: how many frames there are, for the progress bar, if that is known.
        stop: when it is set, the current frame is the last.

    Raises:
        InputError: an output cannot be written, or a camera fails.
    """
    tally = Tally(predictor.class_names, predictor.thresholds)
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        stack.enter_context(contextlib.closing(results))
        for each in tqdm(results, desc="detect", total=total, disable=not sys.stderr.isatty()):
            record = _take(each, predictor.class_names, sinks, tally)
            if records:
                records.write(record)
            tally.seconds = time.monotonic() - begin
            if stop and stop.is_set():
                break
    return tally


def _take(result: FrameResult, class_names: Sequence[str], sinks: Sequence[Sink], tally: Tally) -> Record:
    """Give a frame to all sinks and count it; returns its record."""
    frame, place = result.frame, result.frame.item.shown
    if result.pixels is None:
        logger.warning("skipped: %s", result.error)
        tally.num_unreadable += 1
        tally.first_error = tally.first_error or result.error
        return error_record(place, result.error, **frame.where)
    warnings = (*frame.warnings, *result.damage)
    for line in warnings:
        logger.warning("%s", line)
    tally.num_odd += bool(warnings)
    record = detections_record(place, result.found, class_names, **frame.where)
    seen = Seen(frame, result.pixels, result.found, class_names, draw_detections)
    for sink in sinks:
        sink.write(seen)
    tally.add(result.found.labels, result.seconds)
    return record


@dataclass(frozen=True)
class FrameResult:
    """A frame with what was found in its pixels, or the error because of which it has none.

    Attributes:
        damage: what is odd about its file.
        seconds: for reading it and detecting in it (with the others of its batch), without the time that it waited.
    """

    frame: Frame
    pixels: np.ndarray | None = None
    found: Any = None
    error: str = ""
    damage: Sequence[str] = ()
    seconds: float = 0.0


def detect_frames(predictor: FramePredictor, items: Sequence[Item], reading: Reading) -> Iterator[FrameResult]:
    """What is found in each frame of `items`, in order; errors as for `read_frames` and `overlapped`."""
    detect = one_by_one if any(item.kind in LIVE for item in items) else overlapped
    return detect(predictor, read_frames(items, reading))


def overlapped(predictor: FramePredictor, frames: Iterable[Frame]) -> Iterator[FrameResult]:
    """What is found in each frame, in order; reading, the network and the use of the results overlap.

    Raises:
        InputError: the model fails on a frame that could be read.
    """
    stages = _FrameStages(predictor)
    with contextlib.closing(detect_stream(stages, frames)) as outcomes:
        for outcome in outcomes:
            seconds = stages.seconds.pop(id(outcome.image), 0.0)
            if outcome.error is None:
                yield FrameResult(outcome.image, outcome.pixels, outcome.detections, "", outcome.damage, seconds)
            elif outcome.pixels is None and isinstance(outcome.error, InputError):
                yield FrameResult(outcome.image, error=str(outcome.error))
            else:
                raise outcome.error


class _FrameStages:
    """The stages of a predictor, see `inference.stages`, for frames in the place of images.

    Attributes:
        seconds: id of a frame -> how long it took, see `FrameResult`.
    """

    def __init__(self, predictor: FramePredictor) -> None:
        stages = stages_of(predictor)
        self.class_names, self.batch_size = stages.class_names, stages.batch_size
        self.num_copies = getattr(predictor, "num_copies", 1)
        self._stages, self.finish, self._read = stages, stages.finish, stages.pixels
        self.seconds: dict[int, float] = {}
        self._in_thread = threading.local()  # the frame that this thread reads, and since when

    def pixels(self, frame: Frame, color: str) -> np.ndarray:
        self._in_thread.frame, self._in_thread.begin = id(frame), time.monotonic()
        return _pixels_of(frame, self._read)

    def network_input(self, pixels: np.ndarray) -> tuple[int, Any]:
        found = self._stages.network_input(pixels)
        self.seconds[self._in_thread.frame] = time.monotonic() - self._in_thread.begin
        return self._in_thread.frame, found

    def run(self, inputs: Sequence[tuple[int, Any]]) -> list[Any]:
        begin = time.monotonic()
        found = self._stages.run([each for _, each in inputs])
        for frame, _ in inputs:
            self.seconds[frame] += time.monotonic() - begin
        return found


def one_by_one(predictor: FramePredictor, frames: Iterable[Frame]) -> Iterator[FrameResult]:
    """As `overlapped`, except that a frame is asked for when the one before has been used.

    So the frames of a camera are the newest, and an image that comes alone does not wait for others.
    """
    for frame in frames:
        begin = time.monotonic()
        with collected_damage() as damage:
            try:
                pixels = _pixels_of(frame, predictor.pixels)
            except InputError as error:
                pixels, fault = None, str(error)
        if pixels is None:
            yield FrameResult(frame, error=fault)
        else:
            yield FrameResult(frame, pixels, predictor.detect(pixels), "", damage, time.monotonic() - begin)


def _pixels_of(frame: Frame, read: Callable[[Any], np.ndarray]) -> np.ndarray:
    if frame.error:
        raise InputError(frame.error)
    return read(frame.image) if frame.pixels is None else frame.pixels


def refuse_nothing_read(tally: Tally) -> None:
    """Raise an `InputError` if there were images and none of them could be read."""
    if tally.num_unreadable and not tally.num_seen:
        raise InputError(f"none of the {tally.num_unreadable} images could be read; the first: {tally.first_error}")
