"""Pictures of what was found: a file per image or frame, or a window."""

from __future__ import annotations

import os
from pathlib import Path

import cv2

from engine.data.image_file import picture_name, write_image
from engine.errors import InputError
from engine.inference.sinks import SINKS, Output, Seen
from engine.inference.sources import Frame

ESCAPE_KEY = 27


@SINKS.register("pictures")
class PictureSink:
    """Writes each picture under the name of its image; frames, if no video is written, as `NAME/000017.jpg`."""

    place = "pictures"

    def __init__(self, folder: Path, output: Output) -> None:
        if os.path.realpath(folder) in {os.path.dirname(original) for original in output.originals}:
            raise InputError(f"{folder} is the folder of the images, which would be overwritten; name another folder")
        self._folder, self._originals, self._with_video = folder, output.originals, output.with_video

    def write(self, seen: Seen) -> None:
        if self._with_video and seen.frame.number is not None:
            return
        path = self._folder / picture_path(seen.frame, seen.picture.shape[:2])
        if os.path.realpath(path) in self._originals:
            raise InputError(f"{path} is one of the images, which would be overwritten; name another --output-dir")
        write_image(path, seen.picture)

    def close(self) -> None:
        pass


def picture_path(frame: Frame, size: tuple[int, int]) -> Path:
    """Where the picture of `size` of a frame stands below its folder."""
    name = frame.item.name
    return name.parent / picture_name(name, size) if frame.number is None else name / f"{frame.number:06d}.jpg"


class Window:
    """Shows each picture until a key is pressed, frames as they come; after Esc, no further ones."""

    place = ""

    def __init__(self) -> None:
        self._is_open = True

    def write(self, seen: Seen) -> None:
        if not self._is_open:
            return
        frame = seen.frame
        try:
            cv2.imshow(frame.item.name.name, seen.picture)
        except cv2.error as error:
            raise InputError(
                "no window can be opened here (no display, or OpenCV without windows); omit --show"
            ) from error
        key = cv2.waitKey(0 if frame.number is None else 1)
        self._is_open = key != ESCAPE_KEY
        if frame.number is None or not self._is_open:
            cv2.destroyWindow(frame.item.name.name)

    def close(self) -> None:
        pass
