"""Frames of items: image files, video files, cameras and streams.

A reader is a function registered in `SOURCES` under the kind of its items, see `items.kind_of`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its lines on stderr; ours name the file and what to do

import cv2
import numpy as np

from engine.inference.items import Item
from engine.inference.live import LatestFrames
from engine.log import get_logger
from engine.registry import Registry, lookup

SOURCES = Registry("SOURCES")
"""kind -> function (Item, Reading) -> iterator of `Frame`."""
USUAL_RATE = 25.0
"""Frames per second of a video that does not say."""
_RATES = (0.1, 1000.0)
OPEN_SECONDS = 10.0
"""The longest that OpenCV may wait for a stream to be opened, or for its next frame."""


@dataclass(frozen=True)
class Frame:
    """An image, or a frame of a video, camera or stream.

    Attributes:
        item: what it belongs to.
        image: what the predictor's `pixels` takes: a path, or BGR pixels (H, W, 3).
        pixels: what that returned, if the image has been read already.
        error: why there is neither, one line.
        warnings: what is wrong with it although it could be read.
        number: of a frame, from 0.
        time: of a frame, seconds: since the beginning of a video, since 1970 of a camera or stream.
        rate: frames per second.
        is_last: no frame of a video or image follows.
    """

    item: Item
    image: Path | np.ndarray | None = None
    pixels: np.ndarray | None = None
    error: str = ""
    warnings: tuple[str, ...] = ()
    number: int | None = None
    time: float | None = None
    rate: float | None = None
    is_last: bool = False

    @property
    def where(self) -> dict[str, Any]:
        """What a record says beside the image, see `records`."""
        if self.number is None:
            return {}
        facts: dict[str, Any] = {"frame": self.number}
        if self.time is not None:
            facts["time"] = round(self.time, 3)
        return facts | ({"last": True} if self.is_last else {})


class Capture(Protocol):
    """What is used of `cv2.VideoCapture`."""

    def isOpened(self) -> bool: ...  # noqa: N802
    def read(self) -> tuple[bool, np.ndarray | None]: ...
    def get(self, key: int) -> float: ...
    def release(self) -> None: ...


def open_capture(place: str | int) -> Capture:
    """`cv2.VideoCapture` of a file, an address or the number of a camera; addresses with limits of time."""
    if isinstance(place, str) and "://" in place:
        limit = round(1000 * OPEN_SECONDS)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
        return cv2.VideoCapture(place, cv2.CAP_FFMPEG, limits)
    return cv2.VideoCapture(place)


@dataclass(frozen=True)
class Reading:
    """How frames are read.

    Attributes:
        stop: set when the run is to end.
        timeout: seconds after which a camera or stream without a new frame is given up, 0 for never.
        first: number of the first frame of a camera or stream, which an earlier run may have begun.
        capture: opens videos, cameras and streams.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    timeout: float = 60.0
    first: int = 0
    capture: Callable[[str | int], Capture] = open_capture


def read_frames(items: Iterable[Item], reading: Reading) -> Iterator[Frame]:
    """The frames of all `items`, in order, until `reading.stop` is set.

    Videos that cannot be read give a frame with an `error`; image files are not read here.

    Raises:
        InputError: a camera or stream cannot be opened, or gives no more frames.
    """
    for item in items:
        for frame in lookup(SOURCES, item.kind, "the kind of an input")(item, reading):
            if reading.stop.is_set():
                return
            yield frame


@SOURCES.register("image")
def image_frames(item: Item, reading: Reading) -> Iterator[Frame]:
    yield Frame(item, Path(item.place), is_last=True)


@SOURCES.register("video")
def video_frames(item: Item, reading: Reading) -> Iterator[Frame]:
    """All frames of a video file, none dropped. One frame is read ahead, so that the last one is known."""
    if not os.path.isfile(item.place):
        reason = "is not a file" if os.path.exists(item.place) else "no such video file"
        yield Frame(item, error=f"{item.place}: {reason}", is_last=True)
        return
    capture = reading.capture(item.place)
    try:
        promised, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), usable_rate(capture.get(cv2.CAP_PROP_FPS))
        before: Frame | None = None
        for number, (pixels, seconds) in enumerate(_decoded(capture, rate)):
            if before:
                yield before
            before = Frame(item, pixels, number=number, time=seconds, rate=rate)
        if before is None:
            error = f"{item.place}: damaged, or not a video that OpenCV can read; replace or convert it"
            yield Frame(item, error=error, is_last=True)
            return
        short = promised - before.number - 1
        warning = f"{item.place}: damaged: ends after {before.number + 1} of {promised:.0f} frames"
        yield replace(before, is_last=True, warnings=(warning,) if short > 1 else ())
    finally:
        capture.release()


def _decoded(capture: Capture, rate: float) -> Iterator[tuple[np.ndarray, float]]:
    """(BGR pixels, seconds since the beginning) of each frame."""
    number = 0
    while capture.isOpened():
        is_read, pixels = capture.read()
        if not is_read or pixels is None:
            return
        seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        yield pixels, seconds if seconds > 0 or number == 0 else number / rate
        number += 1


def usable_rate(rate: float) -> float:
    """Frames per second as a file or camera states them, or `USUAL_RATE` if that cannot be.

    Example:
        >>> usable_rate(29.97), usable_rate(0.0), usable_rate(float("nan")), usable_rate(90000.0)
        (29.97, 25.0, 25.0, 25.0)
    """
    return rate if _RATES[0] <= rate <= _RATES[1] else USUAL_RATE


@SOURCES.register("stream")
@SOURCES.register("camera")
def live_frames(item: Item, reading: Reading) -> Iterator[Frame]:
    """The newest frame whenever one is asked for; those in between are dropped."""
    place = int(item.place) if item.kind == "camera" else item.place
    reader = LatestFrames(partial(reading.capture, place), item.shown, reading.timeout, reading.stop)
    with reader:
        for number, (pixels, seconds) in enumerate(reader, reading.first):
            yield Frame(item, pixels, number=number, time=seconds, rate=usable_rate(reader.rate))
    if reader.num_dropped:
        get_logger(__name__).info("%s: %d frames dropped to keep up with it", item.shown, reader.num_dropped)
