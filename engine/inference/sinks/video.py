"""Videos of what was found, of the size and frame rate of their sources."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from engine.errors import InputError
from engine.inference.items import LIVE
from engine.inference.sinks import SINKS, Output, Seen
from engine.inference.sources import Frame
from engine.log import get_logger

_LONGEST_GAP = 10.0
"""Seconds that a picture is repeated at most while a camera sends none."""


@SINKS.register("video")
class VideoSink:
    """Writes each video as `NAME.mp4`, which appears when it is complete or the run is stopped.

    A picture of a camera or stream is repeated until the next one came, so that the video runs as fast as its source.
    If the size changes, or a file of an earlier run has the name, another file is begun (`NAME_2.mp4`).
    """

    place = "videos"

    def __init__(self, folder: Path, output: Output) -> None:
        self._folder, self._originals = folder, output.originals
        self._open: _OpenVideo | None = None

    def write(self, seen: Seen) -> None:
        frame = seen.frame
        if frame.number is None:
            return
        is_live = frame.item.kind in LIVE
        size = seen.picture.shape[:2]
        if self._open and (self._open.place != frame.item.place or self._open.size != size):
            self.close()
        if self._open is None:
            self._open = self._begin(frame, size, is_live)
        for _ in range(self._open.missing(frame.time) if is_live else 1):
            self._open.write(seen.picture)
        if frame.is_last:
            self.close()

    def close(self) -> None:
        if self._open:
            self._open.close()
            self._open = None

    def _begin(self, frame: Frame, size: tuple[int, int], is_live: bool) -> _OpenVideo:
        path = self._folder / frame.item.name
        if is_live or frame.number:
            path = _free(path.with_name(f"{path.name}.mp4") if is_live else path)
        if os.path.realpath(path) in self._originals:
            raise InputError(f"{path} is one of the videos, which would be overwritten; name another --output-dir")
        return _OpenVideo(path, frame.item.place, size, frame.rate or 0.0, frame.time or 0.0)


def _free(path: Path) -> Path:
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return free


class _OpenVideo:
    """A video under a temporary name until it is closed."""

    def __init__(self, path: Path, place: str, size: tuple[int, int], rate: float, begin: float) -> None:
        self.place, self.size, self._rate, self._begin = place, size, rate, begin
        self._path, code, api = _form(path, size)
        self._temporary = self._path.with_name(f".{self._path.stem}.part{self._path.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path.parent} cannot be created ({error.strerror}); name another folder") from error
        fourcc = cv2.VideoWriter_fourcc(*code)
        self._writer = cv2.VideoWriter(str(self._temporary), api, fourcc, rate, size[::-1])
        if not self._writer.isOpened():
            raise InputError(f"{self._path}: cannot be written; is there space, and may its folder be written to?")
        self._count = 0

    def missing(self, time: float | None) -> int:
        """How many frames bring the video up to `time`; at least one."""
        due = round(((time or self._begin) - self._begin) * self._rate) + 1 - self._count
        return min(max(due, 1), round(_LONGEST_GAP * self._rate))

    def write(self, picture: np.ndarray) -> None:
        self._writer.write(picture)
        self._count += 1

    def close(self) -> None:
        self._writer.release()
        capture = cv2.VideoCapture(str(self._temporary))
        count = round(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
        capture.release()
        if not count:
            self._temporary.unlink(missing_ok=True)
            raise InputError(f"{self._path}: could not be written; is the disk full?")
        os.replace(self._temporary, self._path)
        if count != self._count:
            get_logger(__name__).warning("%s: holds %d of %d frames; is the disk full?", self._path, count, self._count)


def _form(path: Path, size: tuple[int, int]) -> tuple[Path, str, int]:
    """(path, code of the format, backend): MPEG-4, or JPEG pictures in AVI where a side is odd.

    FFmpeg would cut off the last row or column of those.
    """
    if size[0] % 2 or size[1] % 2:
        return path.with_suffix(".avi"), "MJPG", cv2.CAP_OPENCV_MJPEG
    return path, "mp4v", cv2.CAP_FFMPEG
