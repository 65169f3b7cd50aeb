"""Images and boxes as formats without ids name them, collected into an `AnnotationTable`.

Such formats say "this file has a box of this class": ids are given here. Images are numbered from 1 in the order of
their names. Classes are numbered from 1, in the order of the list of classes that lies beside the annotations or else
of their names; classes that are numbers keep them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.data.annotations import AnnotationTable, StringTable, flat_ids
from engine.data.formats.class_list import ClassList
from engine.data.formats.corners import Box
from engine.data.formats.values import whole_number
from engine.errors import InputError, listed, shown
from engine.log import warn_once
from engine.spelling import normal_name


class Collector:
    """Annotations of one file or folder.

    Args:
        source: the file or folder, for messages.
        classes: the list of classes beside it, if there is one. It counts if it has all classes that boxes have.

    Example:
        >>> found = Collector(Path("a.csv"))
        >>> found.add_image("b.jpg", size=(480, 640))
        >>> found.add_box("a.jpg", "hole", (10.0, 20.0, 5.0, 6.0))
        >>> table = found.table()
        >>> table.image_ids[0], table.file_names[0], table.category_names, table.boxes_xywh.tolist()
        (1, 'a.jpg', ['hole'], [[10.0, 20.0, 5.0, 6.0]])
    """

    def __init__(self, source: Path, classes: ClassList | None = None) -> None:
        self.source, self.classes = source, classes
        self._images: dict[str, int] = {}  # file name -> row
        self._sizes: list[tuple[int, int]] = []
        self._names: dict[str, int] = {}  # class -> row
        self._image_rows, self._class_rows, self._boxes = array("q"), array("q"), array("d")
        self._crowd = array("b")
        self._sources: dict[str, Path] = {}

    def add_image(self, file_name: str, size: tuple[int, int] = (0, 0), source: Path | None = None) -> None:
        """An image, which may be added before.

        Args:
            size: (height, width), zeros if it is not stated.
            source: its own file of annotations, in formats that have one for each image.

        Raises:
            InputError: another file has been added as its own.
        """
        if source is not None and (other := self._sources.setdefault(file_name, source)) is not source:
            raise InputError(
                f"{other} and {source} are both about the image {shown(file_name)}; remove or rename one of them, or"
                " name the folders of annotations and images that belong together"
            )
        row = self._images.setdefault(file_name, len(self._images))
        if row == len(self._sizes):
            self._sizes.append((0, 0))
        if size[0] and size[1]:
            self._sizes[row] = size

    def add_box(self, file_name: str, class_name: str, box: Box, crowd: bool = False) -> None:
        """A box of an image, which is added; `crowd` makes it an ignore region."""
        self.add_image(file_name)
        self._image_rows.append(self._images[file_name])
        self._class_rows.append(self._names.setdefault(normal_name(class_name), len(self._names)))
        self._boxes.extend(box)
        self._crowd.append(crowd)

    def table(self) -> AnnotationTable:
        """All that was added, images by name, boxes of an image in the order in which they came.

        Raises:
            InputError: classes are numbers, and the list of classes does not say which names these are.
        """
        names, ids = class_ids(list(self._names), self.classes, self.source)
        rows = {name: row for row, name in enumerate(ids)}
        row_of = np.array([rows[names[name]] for name in self._names], dtype=np.int64)
        order = sorted(self._images)
        new_rows = np.empty(len(order), dtype=np.int64)
        new_rows[[self._images[name] for name in order]] = np.arange(len(order))
        image_rows = new_rows[np.asarray(self._image_rows, dtype=np.int64)]
        sequence = np.argsort(image_rows, kind="stable")
        boxes = np.asarray(self._boxes, dtype=np.float64).reshape(-1, 4)[sequence]
        with np.errstate(over="ignore"):
            areas = boxes[:, 2] * boxes[:, 3]
        sizes = np.array([self._sizes[self._images[name]] for name in order], dtype=np.int32).reshape(-1, 2)
        return AnnotationTable(
            image_ids=flat_ids(range(1, len(order) + 1)),
            file_names=StringTable(order),
            sizes=sizes,
            category_ids=list(ids.values()),
            category_names=list(ids),
            image_rows=image_rows[sequence],
            category_rows=row_of[np.asarray(self._class_rows, dtype=np.int64)[sequence]],
            boxes_xywh=boxes,
            areas=areas,
            crowd=np.asarray(self._crowd, dtype=bool)[sequence],
        )


def class_ids(used: Sequence[str], classes: ClassList | None, source: Path) -> tuple[dict[str, str], dict[str, int]]:
    """What the classes that boxes have are called, and the ids of all classes, ascending.

    Returns:
        class as boxes have it -> name; name -> id.

    Raises:
        InputError: see `ClassList.names_by_number`.

    Example:
        >>> class_ids(["hole", "dent"], None, Path("a.csv"))
        ({'hole': 'hole', 'dent': 'dent'}, {'dent': 1, 'hole': 2})
        >>> class_ids(["2", "0"], None, Path("a.csv"))
        ({'2': '2', '0': '0'}, {'0': 1, '2': 3})
    """
    numbers = {name: whole_number(name) for name in used}
    are_numbers = None not in numbers.values() and min(numbers.values(), default=0) >= 0
    has_numbers = classes is not None and classes.numbers is not None and set(numbers.values()) <= set(classes.numbers)
    if classes is not None and set(used) <= set(classes.names) and not has_numbers:  # a class may be called 1, too
        return {name: name for name in used}, _ids_of(classes)
    if are_numbers and classes is not None:
        names = classes.names_by_number(list(numbers.values()))
        return {name: names[number] for name, number in numbers.items()}, _ids_of(classes)
    if classes is not None:
        missing = [name for name in used if name not in classes.names]
        warn_once(f"{source}: {classes.source} is not used as the list of classes; it lacks {listed(missing[:3])}")
    if are_numbers:
        names = {name: str(number) for name, number in numbers.items()}
        shift = 1 if 0 in numbers.values() else 0  # ids begin with 1
        return names, {str(number): number + shift for number in sorted(set(numbers.values()))}
    return {name: name for name in used}, {name: number for number, name in enumerate(sorted(used), start=1)}


def _ids_of(classes: ClassList) -> dict[str, int]:
    """Ids in ascending order: the numbers of the list, else from 1 in its order."""
    numbers = classes.numbers or range(1, len(classes.names) + 1)
    return {name: number for number, name in sorted(zip(numbers, classes.names, strict=True))}
