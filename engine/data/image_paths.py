"""Which file a `file_name` of an annotation file means, where programs and systems spell it differently."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from engine.data.annotations import StringTable
from engine.errors import shown
from engine.log import warn_once
from engine.spelling import normal_name


def find_file_names(name: str, folder: Path, file_names: Sequence[str]) -> Sequence[str]:
    """The names in `folder` of the files that `file_names` mean.

    A file that is there under the name as written is taken. Otherwise one inside the folder is sought whose name has
    slashes for backslashes, no blanks at its ends, another Unicode form, another case of the suffix, no `%20`, or
    lacks folders that repeat `folder` (`images/a.jpg` in `images`). A name that fits no file, or several, stays as it
    is, and so do absolute paths and those that leave the folder. One warning tells how many are spelled differently.

    Each folder is listed once, so this is fast where a look at each file is not (network file systems).

    Args:
        name: of the data set, for the warning.
    """
    search = _Search(folder)
    names = search.names_in("")
    found = [None if file_name in names else search.find(file_name) for file_name in file_names]
    example = next(((i, each) for i, each in enumerate(found) if each is not None), None)
    if example is None:
        return file_names
    num_found = sum(each is not None for each in found)
    written, actual = file_names[example[0]], example[1]
    warn_once(
        f"{name}: {num_found} of {len(file_names)} file names are spelled differently in {folder}: {shown(written)} is "
        f"read from {shown(actual)}"
    )
    return StringTable(actual or written for actual, written in zip(found, file_names, strict=True))


class _Search:
    """Finds names below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._own_name = _key(os.path.basename(os.path.abspath(folder)))
        self._names: dict[str, frozenset[str]] = {}  # folder, relative to `_folder` -> what it holds
        self._by_key: dict[str, dict[str, list[str]]] = {}  # the same by `_key`

    def find(self, file_name: str) -> str | None:
        """The name of the file if it differs from `file_name`; None if it does not, or if there is no such file."""
        parent, _, base = file_name.rpartition("/")
        if base in self.names_in(parent):
            return None
        if file_name.startswith("/") or os.path.exists(os.path.join(self._folder, file_name)):
            return None
        for parts in self._readings(file_name):
            found = self._descend(parts)
            if found is not None and found != file_name:
                return found
        return None

    def _readings(self, file_name: str) -> Iterator[list[str]]:
        """What `file_name` may mean, as parts of a path, best first."""
        spellings = dict.fromkeys([file_name.replace("\\", "/"), unquote(file_name).replace("\\", "/")])
        for spelling in spellings:
            parts = [part for part in spelling.split("/") if part not in ("", ".")]
            if ".." in parts or "\0" in spelling:
                continue
            yield parts
            for depth in range(len(parts) - 1, 0, -1):
                if _key(parts[depth - 1]) == self._own_name:
                    yield parts[depth:]

    def _descend(self, parts: Sequence[str]) -> str | None:
        """The one path from the folder whose parts are `parts`, as written or else by their keys."""
        path = ""
        for part in parts:
            if part not in self.names_in(path):
                candidates = self._names_by_key(path).get(_key(part), [])
                same_suffix = [each for each in candidates if normal_name(each) == normal_name(part)]
                candidates = same_suffix or candidates
                if len(candidates) != 1:
                    return None
                part = candidates[0]
            path = f"{path}/{part}" if path else part
        return path or None

    def names_in(self, path: str) -> frozenset[str]:
        """What a folder holds; nothing if there is no such folder."""
        if path not in self._names:
            names: list[str] = []
            with suppress(OSError, ValueError):  # no such folder; a name that no file can have
                names = os.listdir(os.path.join(self._folder, path))
            self._names[path] = frozenset(names)
        return self._names[path]

    def _names_by_key(self, path: str) -> dict[str, list[str]]:
        if path not in self._by_key:
            by_key: dict[str, list[str]] = {}
            for each in self.names_in(path):
                by_key.setdefault(_key(each), []).append(each)
            self._by_key[path] = by_key
        return self._by_key[path]


def _key(part: str) -> str:
    """A part of a path without what may differ: blanks at the ends, Unicode form, case of the suffix."""
    stem, suffix = os.path.splitext(normal_name(part))
    return stem + suffix.lower()
