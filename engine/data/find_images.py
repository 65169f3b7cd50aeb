"""The image files that files, folders and patterns name, and what is left out of them and why."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.image_file import IMAGE_SUFFIXES
from engine.errors import InputError
from engine.files import expanded, read_bytes

LIST_SUFFIX = ".txt"


@dataclass
class FoundImages:
    """Image files, each once.

    Attributes:
        paths: in the order of the places, each sorted by name.
        names: where each stands below the place that names it: `a.png`, `left/a.png`. Those of two places may agree.
        left_out: reason -> how many files or folders.
    """

    paths: list[Path] = field(default_factory=list)
    names: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """What was left out, on one line; "" if nothing.

        Example:
            >>> FoundImages(left_out=Counter({"hidden": 2, "not an image (.txt)": 1})).summary()
            'left out: 2 hidden, 1 not an image (.txt)'
        """
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))
        return f"left out: {counts}" if counts else ""


def find_images(
    places: Sequence[str | Path],
    recursive: bool = False,
    skip: Path | None = None,
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
    with_lists: bool = False,
) -> FoundImages:
    """The image files in `places`.

    A file that is named itself is taken under any name. Of a folder, and of what a pattern matches, those are taken
    that have one of `suffixes` and are not hidden; `.npy` files, which often are no images, where a pattern ends with
    this.

    Args:
        places: files, folders and patterns (`parts/*.png`; `**` stands for any number of folders).
        recursive: take sub-folders too.
        skip: a folder whose content is left out (pictures of an earlier run), unless it is a place itself.
        suffixes: lower case; by default those of images.
        with_lists: a `.txt` file is a list, with a path per line, relative to its folder; those need not exist.

    Raises:
        InputError: a place does not exist or matches nothing, or there is no image in all of them.
    """
    found, seen = FoundImages(), set()
    skip = _real(skip) if skip else None
    for place in map(str, places):
        is_inside = skip in (_real(place), *_real(place).parents)
        is_list = with_lists and os.path.isfile(place) and place.lower().endswith(LIST_SUFFIX)
        files = _files_listed(Path(place)) if is_list else _files_at(place, recursive, found.left_out, suffixes)
        for path, name in files:
            real = _real(path)
            if real in seen:
                found.left_out["named twice"] += 1
            elif skip in real.parents and not is_inside:
                found.left_out["in the folder of pictures (--output-dir)"] += 1
            else:
                seen.add(real)
                found.paths.append(path)
                found.names.append(name)
    if not found.paths:
        named = ", ".join(map(str, places))
        left_out = f"; {found.summary()}" if found.left_out else ""
        raise InputError(f"{named} holds no images ({', '.join(suffixes)}){left_out}")
    return found


def _files_at(
    place: str, recursive: bool, left_out: Counter[str], suffixes: Sequence[str]
) -> Iterator[tuple[Path, Path]]:
    """(path, name below the place) of the images of one place; counts the others in `left_out`."""
    path = Path(place)
    if place and os.path.isdir(place):
        try:
            inside = list(path.iterdir())
        except OSError as error:
            raise InputError(f"{place}: cannot be opened ({error.strerror})") from error
        yield from _files_in(inside, path, recursive, left_out, frozenset({_real(path)}), suffixes)
    elif place and os.path.exists(place):
        yield path, Path(path.name)
    elif glob.has_magic(place):
        matched = [Path(each) for each in glob.glob(place, recursive=True)]
        if not matched:
            raise InputError(f"{place}: matches no file")
        suffixes = (*suffixes, ".npy") if place.lower().endswith(".npy") else suffixes
        yield from _files_in(matched, _fixed_part(place), recursive, left_out, frozenset(), suffixes)
    else:
        raise InputError(f"{place!r}: is not a file, a folder or a pattern; name the images")


def _files_listed(path: Path) -> Iterator[tuple[Path, Path]]:
    """(path, name) of the files that a list names; blank lines and those that begin with # are passed over."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a list of images in UTF-8 text; save it as UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        place = line.strip()
        if not place or place.startswith("#"):
            continue
        try:
            entry = Path(expanded(place))
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        is_below = not entry.is_absolute() and ".." not in entry.parts
        yield path.parent / entry, entry if is_below else Path(entry.name)


def _files_in(
    entries: Iterable[Path],
    root: Path,
    recursive: bool,
    left_out: Counter[str],
    above: frozenset[Path],
    suffixes: Sequence[str],
) -> Iterator[tuple[Path, Path]]:
    """Images among `entries` and, if `recursive`, below them; `above` are the folders that a link may lead back to."""
    folders = []
    for path in sorted(entries):
        if path.name.startswith("."):
            left_out["hidden"] += 1
        elif os.path.isdir(path):
            folders.append(path)
        elif path.suffix.lower() in suffixes:
            yield path, path.relative_to(root)
        elif path.suffix.lower() == ".npy":
            left_out["NumPy array(s), see a pattern such as *.npy"] += 1
        else:
            left_out[f"not an image ({path.suffix.lower() or 'without suffix'})"] += 1
    for folder in folders:
        real = _real(folder)
        if not recursive:
            left_out["sub-folder(s), see --recursive"] += 1
        elif real not in above:
            try:
                inside = list(folder.iterdir())
            except OSError as error:
                left_out[f"folder that cannot be opened ({error.strerror})"] += 1
                continue
            yield from _files_in(inside, root, recursive, left_out, above | {real}, suffixes)


def _real(path: str | Path) -> Path:
    """The path without links. Unlike `Path.resolve` and `Path.is_dir`, those of `os.path` never raise."""
    return Path(os.path.realpath(path))


def _fixed_part(pattern: str) -> Path:
    """The folders of `pattern` before the first wildcard.

    Example:
        >>> _fixed_part("parts/*/a?.png").as_posix(), _fixed_part("*.png").as_posix()
        ('parts', '.')
    """
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first])
