"""What becomes of frames that were looked at: pictures, videos, tables, a page.

A sink is a class registered in `SINKS` under its word for `--save`. It is built as `Sink(folder, output)`. What is made
from the records of a whole run is a function registered in `TABLES`: (records, output folder) -> path written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from engine.inference.sources import Frame
from engine.registry import Registry

SINKS = Registry("SINKS")
TABLES = Registry("TABLES")


@dataclass(frozen=True)
class Seen:
    """A frame that could be read, and what was found in it.

    Attributes:
        pixels: (H, W, C), see `Frame.pixels`.
        found: detections in pixels of the frame, highest score first.
        class_names: of labels 0..K-1.
        draw: (pixels, found, class names) -> picture, BGR uint8 (H, W, 3).
    """

    frame: Frame
    pixels: np.ndarray
    found: Any
    class_names: Sequence[str]
    draw: Callable[[np.ndarray, Any, Sequence[str]], np.ndarray]

    @cached_property
    def picture(self) -> np.ndarray:
        """Drawn once for all sinks."""
        return self.draw(self.pixels, self.found, self.class_names)


@dataclass(frozen=True)
class Output:
    """What sinks may want to know.

    Attributes:
        class_names: of labels 0..K-1.
        originals: real paths of the inputs, which must not be overwritten.
        with_video: videos are written as videos, so their frames need not be pictures.
    """

    class_names: Sequence[str]
    originals: frozenset[str] = frozenset()
    with_video: bool = False


class Sink(Protocol):
    """Takes frames one by one; what it writes of an image is complete on disk when `write` returns.

    Attributes:
        place: the folder of a run below which it writes.
    """

    place: str

    def write(self, seen: Seen) -> None: ...

    def close(self) -> None:
        """Called once, after the last frame or when the run is stopped."""
        ...
