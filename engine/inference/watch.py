"""A folder that is watched: images are taken as they appear, each once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engine.data.image_file import IMAGE_SUFFIXES, collected_damage, read_image
from engine.errors import InputError
from engine.inference.items import Item, free_name, image_name
from engine.inference.sources import Frame

LOOK_SECONDS = 0.25
QUIET_SECONDS = 1.0
"""How long size and time of a file must stay the same before it is read."""
PATIENCE_SECONDS = 15.0
"""How long a file that cannot be read must stay the same before it is given up: its writer may be slow."""


@dataclass
class WatchedFolder:
    """Frames of the images in a folder and of those that come into it.

    A file is read when it has not changed for `quiet` seconds; one that cannot be read then (its writer pauses) is
    tried again until it has not changed for `patience` seconds. Hidden files, which most programs that write and then
    rename use, are not looked at.

    Args:
        folder: must exist at the beginning; while it cannot be listed, it counts as empty.
        pixels: reads an image file; raises `InputError`.
        recursive: its sub-folders too.
        done: places of images that an earlier run has taken, in its order.
        skip: a folder that is left out, such as that of the pictures.
        timeout: seconds without a new image after which the run ends, 0 for never.
    """

    folder: Path
    pixels: Callable[[Path], np.ndarray] = read_image
    recursive: bool = False
    done: list[str] = field(default_factory=list)
    skip: Path | None = None
    timeout: float = 0.0
    quiet: float = QUIET_SECONDS
    patience: float = PATIENCE_SECONDS

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Frames in the order in which their files were complete, until `stop` is set or `timeout` is over.

        Raises:
            InputError: there is no such folder.
        """
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: is not a folder; --watch takes one folder that exists")
        taken: set[str] = set()
        for place in self.done:
            free_name(self._name(Path(place)), taken)
        pending = _Pending(set(self.done))
        deadline = time.monotonic() + self.timeout
        while not stop.is_set():
            for path, age in pending.quiet(self._listed(), self.quiet):
                frame = self._read(path, age < self.patience)
                if frame is None:
                    continue
                pending.take(path)
                yield replace(frame, item=replace(frame.item, name=free_name(frame.item.name, taken)))
                deadline = time.monotonic() + self.timeout
                if stop.is_set():
                    return
            if self.timeout and time.monotonic() > deadline and not pending.has_any:
                return
            stop.wait(LOOK_SECONDS)

    def _read(self, path: Path, may_change: bool) -> Frame | None:
        """The image of a file; None if it cannot be read and `may_change`."""
        item = Item("image", str(path), self._name(path))
        with collected_damage() as damage:
            try:
                pixels = self.pixels(path)
            except InputError as error:
                return None if may_change else Frame(item, error=str(error), is_last=True)
        return Frame(item, pixels=pixels, warnings=tuple(damage), is_last=True)

    def _name(self, path: Path) -> Path:
        return image_name(path.relative_to(self.folder))

    def _listed(self) -> list[tuple[Path, tuple[int, int]]]:
        """(path, (size, time of change)) of the images, by name."""
        skip = os.path.realpath(self.skip) if self.skip else None
        found = []
        for root, folders, files in os.walk(self.folder):
            folders[:] = [
                name
                for name in sorted(folders)
                if self.recursive and not name.startswith(".") and os.path.realpath(os.path.join(root, name)) != skip
            ]
            for name in sorted(files):
                if name.startswith(".") or os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
                    continue
                path = Path(root, name)
                try:
                    state = path.stat()
                except OSError:  # renamed or removed meanwhile
                    continue
                found.append((path, (state.st_size, state.st_mtime_ns)))
        return found


def watched_folder(places: Sequence[str], recursive: bool, skip: Path, timeout: float) -> WatchedFolder:
    """The folder that `--watch` means.

    Raises:
        InputError: not exactly one folder that exists is named, or pictures would come into it.
    """
    if len(places) != 1 or not os.path.isdir(places[0]):
        raise InputError(f"{', '.join(places)}: --watch takes one folder that exists")
    if os.path.realpath(places[0]) == os.path.realpath(skip):
        raise InputError(f"{skip} is the watched folder; name another --output-dir")
    return WatchedFolder(Path(places[0]), recursive=recursive, skip=skip, timeout=timeout)


class _Pending:
    """Files that are not taken yet, with the state that they were last seen in and since when."""

    def __init__(self, done: set[str]) -> None:
        self._done = done
        self._seen: dict[Path, tuple[tuple[int, int], float]] = {}

    @property
    def has_any(self) -> bool:
        return bool(self._seen)

    def quiet(self, files: list[tuple[Path, tuple[int, int]]], seconds: float) -> list[tuple[Path, float]]:
        """(path, seconds without a change) of the files that have not changed for `seconds`."""
        now = time.monotonic()
        waiting = [(path, state) for path, state in files if str(path) not in self._done]
        before, self._seen = self._seen, {}
        for path, state in waiting:
            known = before.get(path)
            self._seen[path] = known if known and known[0] == state else (state, now)
        ages = ((path, now - self._seen[path][1]) for path, _ in waiting)
        return [(path, age) for path, age in ages if age >= seconds]

    def take(self, path: Path) -> None:
        self._done.add(str(path))
        self._seen.pop(path, None)
