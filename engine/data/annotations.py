"""The one form that annotations of every format take: flat arrays, with images and categories referred to by row.

Flat, because forked loader workers share flat arrays without copying them. Python counts references inside each object,
so merely reading a list of objects copies its memory pages into every worker.

Shapes: n images, c categories, m annotations.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.registry import Registry

ImageId = int | str

FORMATS = Registry("FORMATS")
"""Readers of annotation files: (ann_file: Path) -> AnnotationTable; they raise an InputError for a faulty file."""


@dataclass(frozen=True)
class AnnotationTable:
    """All that an annotation file says, in its order; nothing is dropped or clipped here.

    Attributes:
        image_ids: n ids, all integers or all strings.
        file_names: n names, relative to the folder of the images.
        sizes: (n, 2) int32 (height, width) of each image as the file states it, 0 where it does not.
        category_ids: c integers in ascending order, perhaps with gaps.
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
    category_ids: list[int]
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


def flat_ids(ids: Sequence[ImageId]) -> Sequence[ImageId]:
    """The ids, all integers (of 64 bits) or all strings, in flat memory; items are Python's `int` or `str`."""
    if ids and isinstance(ids[0], str):
        return StringTable(ids)
    return array("q", ids)  # unlike a NumPy array it yields `int`, which JSON can store


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
