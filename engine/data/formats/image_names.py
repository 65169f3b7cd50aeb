"""The image files of a folder, by name and by stem: most formats name an image only by the name of its own file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePath

from engine.data.formats.files_below import files_below
from engine.data.image_file import IMAGE_SUFFIXES
from engine.spelling import normal_name

_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")
_TAILS = ("_test", "_gt", "_label", "_labels", "_ann", "_bbox")
"""What a text file may have at the end of its name that its image has not, or the other way (DeepPCB: `_test`)."""


class ImageNames:
    """The image files in a folder and the folders in it; hidden ones are left out. Nothing without a folder.

    Args:
        names: the names of the files, where they are known already.

    Attributes:
        names: relative to the folder, with slashes, sorted.
    """

    def __init__(self, folder: Path | None, names: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.names = list(names) if names is not None else files_below(folder, IMAGE_SUFFIXES) if folder else []
        self._known = frozenset(self.names)
        self._by_stem: dict[str, list[str]] = {}  # "left/a" -> its files
        self._by_base: dict[str, list[str]] = {}  # "a" -> files in any folder
        for name in self.names:
            stem = normal_name(os.path.splitext(name)[0])  # `a .jpg` is `a`
            self._by_stem.setdefault(stem, []).append(name)
            self._by_base.setdefault(stem.rpartition("/")[2], []).append(name)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def of_stem(self, stem: str) -> str | None:
        """The image whose path without suffix is `stem`, else the only one in any folder with the last part of it.

        Tried with and without the usual tails, see `_TAILS`. Of several suffixes the first of `IMAGE_SUFFIXES` counts.
        """
        stem = normal_name(stem)
        for each in _with_and_without_tails(stem):
            found = self._by_stem.get(each) or self._by_base.get(each.rpartition("/")[2], ())
            if len({os.path.splitext(name)[0] for name in found}) == 1:
                return min(found, key=lambda name: _rank(name))
        return None

    def of_path(self, path: str, base: Path) -> str:
        """A path as an annotation file in the folder `base` has it, relative to the folder of the images if it can be.

        It may be relative to either folder, absolute (also as on another machine), or without its suffix; what is not
        found is returned with slashes.
        """
        path = path.replace("\\", "/")
        if path in self._known or self.folder is None:
            return path
        try:
            below = os.path.relpath(os.path.join(base, path), self.folder).replace(os.sep, "/")
        except ValueError:  # on another drive
            return path
        if below in self._known:
            return below
        if os.path.splitext(path)[1].lower() not in IMAGE_SUFFIXES:
            return self.of_stem(path) or path
        found = self._by_base.get(normal_name(os.path.splitext(PurePath(path).name)[0]), ())
        same = [name for name in found if name.rpartition("/")[2] == path.rpartition("/")[2]]
        return same[0] if len(same) == 1 and _ABSOLUTE.match(path) else path


def _rank(name: str) -> tuple[int, str]:
    return IMAGE_SUFFIXES.index(os.path.splitext(name)[1].lower()), name


def _with_and_without_tails(stem: str) -> list[str]:
    shorter = [stem.removesuffix(tail) for tail in _TAILS if stem.endswith(tail)]
    return [stem, *shorter, *(stem + tail for tail in _TAILS)]
