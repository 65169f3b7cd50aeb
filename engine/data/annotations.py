"""The one form that annotations of every format take: flat arrays, with images and categories referred to by row.

Flat, because forked loader workers share flat arrays without copying them. Python counts references inside each object,
so merely reading a list of objects copies its memory pages into every worker.

Shapes: n images, c categories, m annotations.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.registry import Registry

ImageId = int | str
CategoryId = int | str

FORMATS = Registry("FORMATS")
"""Readers: (ann_file: Path, img_dir: Path | None) -> AnnotationTable; they raise an InputError for a faulty file."""

WRITERS = Registry("WRITERS")
"""Their inverses: (AnnotationTable, folder: Path) -> (path for `ann_file`, path for `img_dir`), both relative to the
folder, which is empty and written to."""


@dataclass(frozen=True)
class AnnotationTable:
    """All that an annotation file says, in its order; nothing is dropped or clipped here.

    Attributes:
        image_ids: n ids, all integers or all strings.
        file_names: n names, relative to the folder of the images.
        sizes: (n, 2) int32 (height, width) of each image as the file states it, 0 where it does not.
        category_ids: c ids, all integers or all strings, in ascending order (numbers as numbers), perhaps with gaps.
        category_names: c names, in the order of `category_ids`.
        image_rows: (m,) int64 index into the images.
        category_rows: (m,) int64 index into the categories.
        boxes_xywh: (m, 4) float64 x, y, width, height in pixels, as written.
        areas: (m,) float64 square pixels, as written, else width x height.
        crowd: (m,) bool, True for regions that are neither positive nor negative.
    """

    image_ids: Sequence[ImageId]
    file_names: Sequence[str]
    sizes: np.ndarray
    category_ids: list[CategoryId]
    category_names: list[str]
    image_rows: np.ndarray
    category_rows: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


class StringTable(Sequence[str]):
    """An immutable sequence of strings in two arrays: the bytes of all of them, and where each string begins.

    Example:
        >>> list(StringTable(["a.jpg", "", "ü.jpg"]))
        ['a.jpg', '', 'ü.jpg']
    """

    def __init__(self, strings: Iterable[str]) -> None:
        # JSON may hold lone surrogates, and so may file names on Linux; strict UTF-8 refuses them.
        encoded = [string.encode("utf-8", "surrogatepass") for string in strings]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} strings")
        index %= len(self)
        piece = self._bytes[self._offsets[index] : self._offsets[index + 1]]
        return piece.tobytes().decode("utf-8", "surrogatepass")


class _LargeIntegers(Sequence[int]):
    """An immutable sequence of integers of any size, such as UUIDs as numbers, as text in flat memory."""

    def __init__(self, values: Iterable[int]) -> None:
        self._texts = StringTable(map(str, values))

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> int:
        return int(self._texts[index])


def flat_ids(ids: Sequence[ImageId]) -> Sequence[ImageId]:
    """The ids, all integers or all strings, in flat memory; items are Python's `int` or `str`."""
    if ids and isinstance(ids[0], str):
        return StringTable(ids)
    try:
        return array("q", ids)  # unlike a NumPy array it yields `int`, which JSON can store
    except OverflowError:
        return _LargeIntegers(ids)


def unused_ids(ids: Sequence[CategoryId], count: int) -> list[CategoryId]:
    """`count` ids that are not among `ids`, of their type.

    Example:
        >>> unused_ids([3, 7], 2), unused_ids(["hole", "1"], 2)
        ([8, 9], ['2', '3'])
    """
    if all(isinstance(each, int) for each in ids):
        first = max(ids, default=0) + 1
        return list(range(first, first + count))
    free = (text for number in itertools.count(1) if (text := str(number)) not in ids)
    return list(itertools.islice(free, count))


def with_annotations(table: AnnotationTable, rows: np.ndarray) -> AnnotationTable:
    """`table` with only these of its annotations, in this order; `rows` is an int64 index that may repeat."""
    return replace(
        table,
        image_rows=table.image_rows[rows],
        category_rows=table.category_rows[rows],
        boxes_xywh=table.boxes_xywh[rows],
        areas=table.areas[rows],
        crowd=table.crowd[rows],
    )


def merge_split_images(table: AnnotationTable) -> tuple[AnnotationTable, list[str]]:
    """Entries of the same file that each hold a part of its boxes become one image, under the first id.

    Entries of a file that all have the same boxes are deliberate repeats and stay. A box that several of the merged
    entries have is kept once.

    Returns:
        the table, and the files whose entries were merged.
    """
    entries_of: dict[str, list[int]] = {}
    for row, file_name in enumerate(table.file_names):
        entries_of.setdefault(file_name, []).append(row)
    repeated = [rows for rows in entries_of.values() if len(rows) > 1]
    boxes_of: dict[int, dict[int, tuple[float, ...]]] = {row: {} for rows in repeated for row in rows}
    for index in np.flatnonzero(np.isin(table.image_rows, list(boxes_of))).tolist():
        box = (table.category_rows[index], table.crowd[index], *table.boxes_xywh[index].tolist())
        boxes_of[int(table.image_rows[index])][index] = box
    split = [rows for rows in repeated if len({frozenset(boxes_of[row].values()) for row in rows}) > 1]
    target, sizes = np.arange(len(table.image_ids)), table.sizes.copy()  # (n,) row of the image that each becomes
    is_kept = np.ones(len(table.image_rows), dtype=bool)
    for first, *others in split:
        seen = set(boxes_of[first].values())
        for row in others:
            target[row] = first
            sizes[first] = sizes[first] if sizes[first].any() else sizes[row]
            is_kept[[index for index, box in boxes_of[row].items() if box in seen]] = False
            seen |= set(boxes_of[row].values())
    is_image = target == np.arange(len(target))
    rows = np.flatnonzero(is_image).tolist()
    merged = replace(
        table,
        image_ids=flat_ids([table.image_ids[row] for row in rows]),
        file_names=StringTable(table.file_names[row] for row in rows),
        sizes=sizes[rows],
        image_rows=(np.cumsum(is_image) - 1)[target[table.image_rows[is_kept]]],
        category_rows=table.category_rows[is_kept],
        boxes_xywh=table.boxes_xywh[is_kept],
        areas=table.areas[is_kept],
        crowd=table.crowd[is_kept],
    )
    return (merged, [table.file_names[rows[0]] for rows in split]) if split else (table, [])


def group_by_image(image_rows: np.ndarray, num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Put annotations in the order of their images; within an image they keep theirs.

    Args:
        image_rows: (m,) the image of each annotation, in 0..num_images - 1.

    Returns:
        order: (m,) int64 permutation of range(m).
        offsets: (n + 1,) int64; the annotations of image i are order[offsets[i] : offsets[i + 1]].

    Example:
        >>> order, offsets = group_by_image(np.array([2, 0, 2]), 3)
        >>> order.tolist(), offsets.tolist()
        ([1, 0, 2], [0, 1, 1, 3])
    """
    order = np.argsort(image_rows, kind="stable")
    counts = np.bincount(image_rows, minlength=num_images)
    return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
