"""What was found, cut out of its image, a folder per class."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from engine.data.crops import crops
from engine.data.image_file import write_image
from engine.inference.sinks import SINKS, Output, Seen
from engine.visualize.pixels import as_picture


@SINKS.register("crops")
class CropSink:
    """Writes `CLASS/NAME_000.png` for each detection of an image, `CLASS/NAME/000017_000.png` for those of a frame."""

    place = "crops"

    def __init__(self, folder: Path, output: Output) -> None:
        self._folder = folder
        self._classes = [folder_name(name, label) for label, name in enumerate(output.class_names)]

    def write(self, seen: Seen) -> None:
        frame = seen.frame
        name = frame.item.name if frame.number is None else frame.item.name / f"{frame.number:06d}"
        pictures = crops(as_picture(seen.pixels), seen.found)
        for number, (label, picture) in enumerate(zip(np.asarray(seen.found.labels), pictures, strict=True)):
            path = self._folder / self._classes[label] / name.parent / f"{name.name}_{number:03d}.png"
            write_image(path, picture)

    def close(self) -> None:
        pass


def folder_name(name: str, label: int) -> str:
    """A folder for a class, whatever its name.

    Example:
        >>> folder_name("hole", 0), folder_name("../up", 3), folder_name("布", 1)
        ('hole', '3_up', '布')
    """
    plain = re.sub(r"[^\w -]+", "", name).strip()[:60]
    return plain if plain == name else f"{label}_{plain}"
