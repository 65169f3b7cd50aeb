"""Which file a `file_name` of an annotation file means, where programs and systems spell it differently."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from engine.data.annotations import StringTable
from engine.data.image_file import IMAGE_SUFFIXES
from engine.errors import shown
from engine.log import warn_once
from engine.spelling import normal_name

_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".npy")
_ABSOLUTE = re.compile(r"/|[A-Za-z]:[\\/]")
_ROBOFLOW = re.compile(r"(.+)_(?:jpe?g|png|bmp|tiff?|webp|gif)\.rf\.[0-9a-zA-Z]{16,}")
_LABEL_STUDIO = re.compile(r"([0-9a-f]{8})-(.+)")


def find_file_names(name: str, folder: Path, file_names: Sequence[str]) -> Sequence[str]:
    """The names in `folder` of the files that `file_names` mean.

    A file that is there under the name as written is taken. Otherwise one inside the folder is sought whose name has
    slashes for backslashes, no blanks at its ends, another Unicode form, another case of the suffix, no `%20`, or
    lacks folders that repeat `folder` (`images/a.jpg` in `images`). A name that fits no file, or several, stays as it
    is, and so do absolute paths and those that leave the folder. One warning tells how many are spelled differently.

    Then what is still missing is sought under another suffix (`a.png` for `a.jpg`) and under the names that Roboflow
    and Label Studio give, and absolute paths of another machine by their last parts; another warning tells how many
    were found so. A file that another entry means is not taken.

    Each folder is listed once, so this is fast where a look at each file is not (network file systems).

    Args:
        name: of the data set, for the warning.
    """
    search = _Search(folder)
    names = search.names_in("")
    found = [None if file_name in names else search.find(file_name) for file_name in file_names]
    _warn_of(found, file_names, f"{name}: {{}} of {{}} file names are spelled differently in {folder}: {{}}")
    renamed = _renamed(search, file_names, found)
    _warn_of(
        renamed,
        file_names,
        f"{name}: {{}} of {{}} images are not in {folder}, but files that differ by their suffix, by what an export "
        "adds to a name, or by the folder on another machine are read: {}",
    )
    found = [first or second for first, second in zip(found, renamed, strict=True)]
    if not any(found):
        return file_names
    return StringTable(actual or written for actual, written in zip(found, file_names, strict=True))


def _warn_of(found: Sequence[str | None], file_names: Sequence[str], text: str) -> None:
    """Warn if anything was found; `text` has places for the count, the number of names and an example."""
    first = next((index for index, each in enumerate(found) if each is not None), None)
    if first is not None:
        example = f"{shown(file_names[first])} is read from {shown(found[first])}"
        warn_once(text.format(sum(each is not None for each in found), len(file_names), example))


def _renamed(search: _Search, file_names: Sequence[str], found: Sequence[str | None]) -> list[str | None]:
    """For each missing file the one file that no other entry means and that had the same name before an export.

    Only the suffix of the image differs, or one of both has Roboflow's hash (`a_jpg.rf.0f3c...e1.jpg`) or Label
    Studio's (`0f3cb2e1-a.jpg`), or the path is of another machine (`/data/upload/a.jpg`), else it is None.
    """
    missing = [i for i, each in enumerate(found) if each is None and search.lacks(file_names[i])]
    result: list[str | None] = [None] * len(file_names)
    if not missing:
        return result
    taken = {each or name for each, name in zip(found, file_names, strict=True)}
    for index in missing:
        candidate = search.renamed(file_names[index])
        result[index] = candidate if candidate not in taken else None
    repeated = {each for each, count in Counter(filter(None, result)).items() if count > 1}
    return [None if each in repeated else each for each in result]


class _Search:
    """Finds names below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._own_name = _key(os.path.basename(os.path.abspath(folder)))
        self._names: dict[str, frozenset[str]] = {}  # folder, relative to `_folder` -> what it holds
        self._by_key: dict[str, dict[str, list[str]]] = {}  # the same by `_key`
        self._images: dict[tuple[Callable[[str], str], str], dict[str, list[str]]] = {}

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

    def lacks(self, file_name: str) -> bool:
        """Whether there is no such file under the name as written, which may lie anywhere below the folder."""
        parent, _, base = file_name.rpartition("/")
        return not (base in self.names_in(parent) or os.path.exists(os.path.join(self._folder, file_name)))

    def renamed(self, file_name: str) -> str | None:
        """The one image in the folder of a missing one with another suffix, or else with another export's name.

        Of a path on another machine, the file in this folder that its last parts name, as many of them as possible.
        """
        if _ABSOLUTE.match(file_name):
            parts = file_name.replace("\\", "/").split("/")
            tails = (parts[depth:] for depth in range(1, len(parts)) if ".." not in parts[depth:])
            return next(filter(None, map(self._descend, tails)), None)
        if not os.path.basename(file_name):
            return None
        for parts in self._readings(file_name):
            parent = self._descend(parts[:-1]) if parts[:-1] else ""
            if parent is None or not parts:
                continue
            for key_of in (_stem, _original_stem):
                key = key_of(parts[-1])
                same = self._images_by(key_of, parent).get(key, []) if key else []
                if same:
                    return os.path.join(parent, same[0]) if len(same) == 1 else None
        return None

    def _images_by(self, key_of: Callable[[str], str], path: str) -> dict[str, list[str]]:
        if (key_of, path) not in self._images:
            by_key: dict[str, list[str]] = {}
            for each in sorted(self.names_in(path)):
                if os.path.splitext(each)[1].lower() in _SUFFIXES:
                    by_key.setdefault(key_of(each), []).append(each)
            self._images[key_of, path] = by_key
        return self._images[key_of, path]

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


def _stem(name: str) -> str:
    """A name without the suffix of an image."""
    stem, suffix = os.path.splitext(normal_name(name))
    return stem if suffix.lower() in _SUFFIXES else stem + suffix


def _original_stem(name: str) -> str:
    """The stem before an export changed the name.

    A date is not taken for a hash, so the hashes of Label Studio that are digits alone (one in 40) are not known.

    Example:
        >>> _original_stem("a_jpg.rf.0f3cb2e10f3cb2e10f3cb2e10f3cb2e1.jpg"), _original_stem("0f3cb2e1-a.jpg")
        ('a', 'a')
        >>> _original_stem("20240131-a.jpg")
        '20240131-a'
    """
    stem = _stem(name)
    if match := _ROBOFLOW.fullmatch(stem):
        return match[1]
    if (match := _LABEL_STUDIO.fullmatch(stem)) and not match[1].isdigit():
        return match[2]
    return stem


def _key(part: str) -> str:
    """A part of a path without what may differ: blanks at the ends, Unicode form, case of the suffix."""
    stem, suffix = os.path.splitext(normal_name(part))
    return stem + suffix.lower()
