"""The newest frame of a camera or stream, which comes back after it was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from engine.errors import InputError
from engine.log import get_logger

PAUSES = (0.5, 30.0)
"""Seconds before a lost source is opened again: at first, and at most; each pause is twice the one before."""
_LOOK_SECONDS = 0.2
_MOST_EMPTY = 10  # reads without a frame in a row that do not yet count as a loss
_END_SECONDS = 2.0


class LatestFrames:
    """Iterates over (BGR pixels, seconds since 1970); a thread reads on and keeps only the newest frame.

    So a slow consumer sees no old frames. The consumer never waits in OpenCV, whose calls may hang.

    Args:
        capture: opens the source, see `sources.Capture`.
        shown: its name in messages.
        timeout: seconds without a new frame after which the source is given up, 0 for never.
        stop: ends the iteration when it is set.

    Attributes:
        rate: frames per second that the source states.
        num_dropped: frames that were replaced by newer ones before they were asked for.

    Raises:
        InputError: while iterating: the source cannot be opened at first, or gave no frame for `timeout` seconds.
    """

    def __init__(
        self,
        capture: Callable[[], Any],
        shown: str,
        timeout: float,
        stop: threading.Event,
    ) -> None:
        self._capture, self._shown, self._timeout, self._stop = capture, shown, timeout, stop
        self.rate, self.num_dropped = 0.0, 0
        self._newest: tuple[np.ndarray, float] | None = None
        self._failure = ""
        self._is_over = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name=f"reader of {shown}", daemon=True)

    def __enter__(self) -> LatestFrames:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(_END_SECONDS)  # a read that hangs ends with the process

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        deadline = time.monotonic() + self._timeout
        while not self._stop.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._failure, _LOOK_SECONDS)
                newest, self._newest = self._newest, None
            if newest:
                yield newest
                deadline = time.monotonic() + self._timeout
            elif self._failure:
                raise InputError(self._failure)
            elif self._timeout and time.monotonic() > deadline:
                raise InputError(
                    f"{self._shown}: no frame for {self._timeout:g} s; is it connected and sending? (--timeout)"
                )

    def _read(self) -> None:
        """The thread: opens the source, keeps its newest frame, and opens it again when it is lost."""
        pause, has_begun = PAUSES[0], False
        while not self._has_ended():
            num_frames, reason = self._read_until_lost()
            if self._has_ended():
                return
            if not (has_begun or num_frames):
                with self._changed:
                    self._failure = f"{self._shown}: cannot be opened ({reason}); check its number or address"
                    self._changed.notify()
                return
            has_begun = True
            pause = PAUSES[0] if num_frames else min(2 * pause, PAUSES[1])
            get_logger(__name__).warning("%s: lost (%s); opened again in %.1f s", self._shown, reason, pause)
            self._is_over.wait(pause)

    def _read_until_lost(self) -> tuple[int, str]:
        """How many frames came, and why no more do."""
        capture = self._capture()
        try:
            if not capture.isOpened():
                return 0, "no such device, or no answer"
            self.rate = capture.get(cv2.CAP_PROP_FPS)
            num_frames = num_empty = 0
            while num_empty < _MOST_EMPTY and not self._has_ended():
                is_read, pixels = capture.read()
                if not is_read:
                    break
                if pixels is None or not pixels.size:  # a damaged frame
                    num_empty += 1
                    continue
                num_frames, num_empty = num_frames + 1, 0
                self._keep(pixels)
            return num_frames, "it ended" if num_frames else "no frames"
        except cv2.error as error:
            return 0, str(error.err or error)
        finally:
            capture.release()

    def _keep(self, pixels: np.ndarray) -> None:
        with self._changed:
            self.num_dropped += self._newest is not None
            self._newest = pixels, time.time()
            self._changed.notify()

    def _has_ended(self) -> bool:
        return self._is_over.is_set() or self._stop.is_set()
