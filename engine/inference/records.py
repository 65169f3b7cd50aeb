"""One JSON object per line for each image or frame: what was found, or why it could not be read.

    {"image": "a.jpg", "size": [9, 64], "detections": [{"class": "hole", "score": 0.91, "box": [4.0, 7.5, 30.0, 21.5]}]}
    {"image": "b.jpg", "error": "b.jpg: the image file is truncated; copy or download it again"}
    {"image": "line.mp4", "frame": 0, "time": 0.0, "size": [480, 640], "detections": [], "last": true}

`image` is the path or address as it was named, `size` (height, width), `box` xyxy in pixels of the image. Frames count
from 0; their `time` is in seconds, from the beginning of a video file, since 1970 of a camera. The last frame of a
video file has `last`. The order is that of the input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.data.results import Found, to_dict
from engine.errors import InputError

Record = dict[str, Any]


def detections_record(image: str, found: Found, class_names: Sequence[str], **where: Any) -> Record:
    """The record of an image or frame that was looked at.

    Args:
        image: its path or address as named.
        found: on the CPU, highest score first.
        where: `frame` and `time` of a frame.

    Raises:
        InputError: a box or score is not finite.

    Example:
        >>> from engine.structures import Detections
        >>> import torch
        >>> found = Detections(torch.tensor([[1.0, 2.0, 3.5, 6.0]]), torch.tensor([0.9]), torch.tensor([0]), (8, 8))
        >>> detections_record("a.jpg", found, ["hole"])["detections"]
        [{'class': 'hole', 'score': 0.9, 'box': [1.0, 2.0, 3.5, 6.0]}]
    """
    return {"image": image, **where, **to_dict(found, class_names, image)}


def error_record(image: str, error: str, **where: Any) -> Record:
    """The record of an image or frame that could not be read."""
    return {"image": image, **where, "error": error}


def to_line(record: Record) -> bytes:
    """`record` as a line of the file, UTF-8."""
    return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode(errors="backslashreplace")


def read_records(path: str | Path) -> Iterator[Record]:
    """The records of a file.

    Raises:
        InputError: the file cannot be read, or one of its lines, which is named, is not a record.
    """
    for _, record in with_offsets(Path(path)):
        yield record


def whole_bytes(path: Path) -> int:
    """How many bytes at the beginning of a file are whole lines; a killed process may leave a part of one behind."""
    end = 0
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n") or line.strip(b"\0\n") == b"":  # zeros: after a loss of power
                break
            end += len(line)
    return end


def with_offsets(path: Path) -> Iterator[tuple[int, Record]]:
    """(offset in bytes, record) of each record; see `read_records`."""
    offset = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield offset, _record(line, f"{path}:{number}")
                offset += len(line)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _record(line: bytes, where: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("image"), str):
        raise InputError(f"{where}: is not a record of a detection run; remove the file, or write into another folder")
    return record


class RecordFile:
    """Records appended to a file, each handed to the operating system whole before `write` returns.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._failure(error) from None

    def write(self, record: Record) -> None:
        line = to_line(record)
        try:
            while line:
                line = line[os.write(self._file, line) :]
        except OSError as error:
            raise self._failure(error) from None

    def close(self) -> None:
        os.close(self._file)

    def _failure(self, error: OSError) -> InputError:
        return InputError(f"{self.path}: cannot be written ({error.strerror}); what it holds stays, see --resume")
