"""Lists of class names that lie beside annotations: `classes.txt` and its like."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.data.formats.text_file import read_lines, read_text
from engine.data.formats.values import whole_number
from engine.errors import InputError, shown
from engine.spelling import normal_name

FILES = ("classes.txt", "class_names.txt", "labels.txt", "names.txt", "obj.names", "classes.names", "classes.csv")
_NUMBERED = re.compile(r"(\d{1,9})(?:\s*[:=,]\s*|\s+|\s*-\s*)(\S.*)")
_LABELME = ("__ignore__", "_background_")


@dataclass(frozen=True)
class ClassList:
    """Names of classes in their order.

    Attributes:
        names: in their normal form, each once.
        numbers: of each, where the list has them (`1 open`); else None, and they count from 0 or from 1.
        source: for messages.
    """

    names: list[str]
    numbers: list[int] | None
    source: str

    def names_by_number(self, used: Sequence[int]) -> dict[int, str]:
        """The name of each number that is `used`.

        Raises:
            InputError: a number has no name, or it cannot be told whether the names count from 0 or from 1.
        """
        numbers = self.numbers
        if numbers is None:
            first = 0 if 0 in used else 1 if len(self.names) in used else None
            if first is None:
                raise InputError(
                    f"{self.source}: do its names count from 0 or from 1? The annotations use {sorted(used)[:8]}; write"
                    f" the number before each name, as in `1 {self.names[0]}`"
                )
            numbers = list(range(first, first + len(self.names)))
        names = dict(zip(numbers, self.names, strict=True))
        if missing := sorted(set(used) - set(names)):
            some = ", ".join(f"{number} {name}" for number, name in list(names.items())[:3])
            raise InputError(
                f"{self.source}: there is no name for class {missing[0]}, which is used ({some} ...); add it"
            )
        return names


def find_class_list(folder: Path) -> ClassList | None:
    """The list of classes in a folder, or else in the one above it; None if there is none."""
    for place in (folder, folder.absolute().parent):
        for name in FILES:
            if (place / name).is_file():
                return read_class_list(place / name)
    return None


def read_class_list(path: Path) -> ClassList:
    """A list of names, one a line, perhaps with numbers before them (`1 open`, `0: hole`), or a CSV `name,number`.

    Raises:
        InputError: it cannot be read, is empty, or has a name or number twice.
    """
    if path.suffix.lower() == ".csv":
        rows = [row for row in csv.reader(io.StringIO(read_text(path))) if any(map(str.strip, row))]
        if not all(len(row) == 2 and whole_number(row[1]) is not None for row in rows):
            raise InputError(f"{path}: must hold the name of a class and its number on each line, as in `hole,0`")
        pairs = sorted((whole_number(number), normal_name(name)) for name, number in rows)
        return _checked([name for _, name in pairs], [number for number, _ in pairs], path)
    lines = [normal_name(line) for line in read_lines(path)]
    lines = [line for line in lines if line and line not in _LABELME]
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(found):
        return _checked([normal_name(each[2]) for each in found], [int(each[1]) for each in found], path)
    return _checked(lines, None, path)


def _checked(names: list[str], numbers: list[int] | None, path: Path) -> ClassList:
    if not names or "" in names:
        raise InputError(f"{path}: must name each class on a line of its own")
    for what, values in (("class", names), ("number", numbers or [])):
        if repeated := [each for each in dict.fromkeys(values) if values.count(each) > 1]:
            raise InputError(f"{path}: has the {what} {shown(repeated[0])} twice; remove one")
    return ClassList(names, numbers, str(path))


def class_list_text(names: Sequence[str], numbers: Sequence[int] | None = None) -> str | None:
    """The inverse of `read_class_list`; None for names that no line can hold.

    Plain names that would be read as numbered ones are written with numbers from 0.
    """
    if any("\n" in name or "\r" in name or name in _LABELME or not name for name in names):
        return None
    if numbers is None and all(map(_NUMBERED.fullmatch, names)):
        numbers = range(len(names))
    lines = names if numbers is None else (f"{number} {name}" for number, name in zip(numbers, names, strict=True))
    return "".join(f"{line}\n" for line in lines)
