"""A data set as the checks see it: its boxes against the sizes of its images.

Shapes: n images in use, m annotations, M boxes that are no ignore regions; sizes are (height, width) in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from engine.data.dataset import ConcatDataset, DetectionDataset, LabelledImages
from engine.data.doctor.findings import MOST_EXAMPLES, Example

ROUNDING = 1
"""Pixel: by how much the sides of boxes differ between tools."""
_FRACTIONS = (-0.05, 1.05)  # of an image, where boxes may reach a little beyond it
_FAR_OUTSIDE = 0.1  # of a side: by how much a box reaches beyond its image if its numbers mean something else
MANY = 20
"""Boxes, so that where all of them lie is no chance."""
PERCENT = 100 * _FRACTIONS[1]


class Boxes:
    """The boxes of a data set against the sizes of their images.

    Args:
        boxes_xywh: (M, 4) as written.
        sizes: (M, 2) of their images, 0 where they are not known.
        images: (M,) index of the image.
        labels: (M,) of the class; -1 for a class that is not trained.
        areas: (M,) as written, else width x height.
    """

    def __init__(
        self, boxes_xywh: np.ndarray, sizes: np.ndarray, images: np.ndarray, labels: np.ndarray, areas: np.ndarray
    ) -> None:
        self.corners, self.extents, self.images = boxes_xywh[:, :2], boxes_xywh[:, 2:], images
        self.labels, self.areas = labels, areas
        self.sides = sizes[:, ::-1].astype(np.float64)  # (M, 2) width, height
        with np.errstate(over="ignore"):  # 1e308 is a number that JSON may hold
            far = self.far = self.corners + self.extents
        self.is_known = sizes[:, 0] > 0
        self.has_area = (far > self.corners).all(1)
        self.is_outside = self.is_known & ((far <= 0).any(1) | (self.corners >= self.sides).any(1))
        reaches = (self.corners < -ROUNDING).any(1) | (far > self.sides + ROUNDING).any(1)
        self.reaches_outside = self.is_known & reaches
        self.trainable = self.has_area & ~self.is_outside

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def are_relative(self) -> np.ndarray:
        """(M,) bool: all four numbers are fractions, as of the width and height."""
        values = np.concatenate([self.corners, self.extents], axis=1)  # (M, 4)
        are_fractions = ((values >= _FRACTIONS[0]) & (values <= _FRACTIONS[1])).all(1)
        return self.has_area & are_fractions & (self.sides > 8).all(1)

    def look_like_percentages(self) -> bool:
        """Whether many boxes fill the first 100 pixels of images at least twice as large, and none goes further."""
        far = self.far[self.has_area & (self.sides >= 200).all(1)]
        return len(far) >= MANY and bool((far <= PERCENT).all() and (far.max(0) > 90).all())

    def fit_as_corners(self) -> np.ndarray:
        """(M,) bool: with width and height taken for the right and lower sides, the box lies within its image."""
        is_known = self.sides[:, :1] > 0
        return (is_known & (self.extents > self.corners) & (self.extents <= self.sides + ROUNDING)).all(1)

    def share_reaching_far(self) -> float:
        """The share of the images with boxes that have one far beyond their border."""
        known = self.sides[:, 0] > 0
        reaches_far = known & self.trainable & (self.far > self.sides * (1 + _FAR_OUTSIDE)).any(1)
        return len(np.unique(self.images[reaches_far])) / max(len(np.unique(self.images[known])), 1)


class ExaminedSet:
    """One data set, taken apart.

    Args:
        dataset: what is examined.
        min_size: the short side that images are resized to, pixels.
        max_size: limit of their long side.
        roles: of "train", "val" and "test", those in which the configuration uses it.
        tile_size: side of the tiles, pixels, that are resized in place of the images; 0 for none.

    Attributes:
        table: all of the annotation file.
        image_rows: (n,) row of the table of each image.
        stated: (n, 2) sizes as the file states them, 0 where it does not.
        sizes: (n, 2) sizes of the image files, as far as they are known.
        unreadable: indices of images whose header cannot be read.
        scales: (n,) by which training (or testing) resizes each image.
        boxes: those that are no ignore regions.
        num_annotations: m, ignore regions included.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        min_size: int,
        max_size: int,
        roles: Sequence[str] = ("train",),
        tile_size: int = 0,
    ) -> None:
        self.dataset, self.name, self.roles = dataset, dataset.name, tuple(roles)
        self.class_names, self.kept_classes = list(dataset.class_names), list(dataset.kept_classes)
        self.table = table = dataset.annotations
        self.num_images = len(dataset)
        ids, self.stated = dataset.image_ids, dataset.sizes
        self.sizes, self.num_unreadable = dataset.measured_sizes(), dataset.num_unreadable()
        if not ids:  # FILTER_EMPTY has left out all images: why?
            ids, self.stated, self.sizes = list(table.image_ids), table.sizes, table.sizes
        row_of = {image_id: row for row, image_id in enumerate(table.image_ids)}
        self.image_rows = np.fromiter((row_of[image_id] for image_id in ids), np.int64, len(ids))
        place_of = np.full(len(table.image_ids), -1, dtype=np.int64)  # row of the table -> index in the data set
        place_of[self.image_rows] = np.arange(len(self.image_rows))
        in_use = place_of[table.image_rows] >= 0  # (m,) with FILTER_EMPTY some images are not
        crowd = table.crowd[in_use]
        self.num_annotations, self.num_ignored = len(crowd), int(crowd.sum())
        rows = np.flatnonzero(in_use)[~crowd]
        self._label_of = {name: label for label, name in enumerate(self.class_names)}
        labels = np.array([self._label_of.get(name, -1) for name in table.category_names], dtype=np.int64)
        places = place_of[table.image_rows[rows]]
        self.boxes = Boxes(
            table.boxes_xywh[rows],
            self.sizes[places],
            places,
            labels[table.category_rows[rows]],
            table.areas[rows],
        )
        resized = np.full_like(self.sizes, tile_size) if tile_size else self.sizes
        known = np.maximum(resized, 1)  # an unknown size makes no box narrow
        self.scales = np.minimum(min_size / known.min(1), max_size / known.max(1))

    @cached_property
    def per_class(self) -> np.ndarray:
        """(K,) boxes to train on, by label."""
        labels = self.boxes.labels[self.boxes.trainable]
        return np.bincount(labels[labels >= 0], minlength=len(self.class_names))

    @cached_property
    def boxes_per_image(self) -> np.ndarray:
        """(n,) boxes to train on."""
        return np.bincount(self.boxes.images[self.boxes.trainable], minlength=len(self.image_rows))

    @property
    def num_boxes(self) -> int:
        """Boxes to train on."""
        return int(self.boxes.trainable.sum())

    def file_name(self, index: int) -> str:
        """The name of an image's file, as the annotation file writes it."""
        return self.table.file_names[int(self.image_rows[index])]

    def file_names(self) -> list[str]:
        """Those of all images."""
        return [self.table.file_names[row] for row in self.image_rows.tolist()]

    def image(self, index: int, text: str = "") -> Example:
        """An image as an example."""
        image_id = self.table.image_ids[int(self.image_rows[index])]
        return Example(self.file_name(index), image_id, text=text, dataset=self.name)

    def images(self, which: np.ndarray) -> Iterator[Example]:
        """The first images of a mask (n,) or of indices, as examples."""
        indices = np.flatnonzero(which) if which.dtype == bool else which
        return (self.image(index) for index in indices[:MOST_EXAMPLES].tolist())

    def box(self, index: int, text: str = "") -> Example:
        """A box as an example."""
        image_id = self.table.image_ids[int(self.image_rows[self.boxes.images[index]])]
        box = (*self.boxes.corners[index].tolist(), *self.boxes.extents[index].tolist())
        label = int(self.boxes.labels[index])
        name = self.class_names[label] if label >= 0 else ""
        return Example(self.file_name(int(self.boxes.images[index])), image_id, box, text or name, self.name)

    def some_boxes(self, which: np.ndarray, badness: np.ndarray | None = None) -> Iterator[Example]:
        """Boxes of a mask (M,) as examples, those with the largest `badness` (M,) first."""
        rows = np.flatnonzero(which)
        if badness is not None:
            rows = rows[np.argsort(-badness[rows], kind="stable")]
        return (self.box(row) for row in rows[:MOST_EXAMPLES].tolist())


def examine(
    dataset: LabelledImages, min_size: int, max_size: int, roles: Sequence[str] = ("train",), tile_size: int = 0
) -> list[ExaminedSet]:
    """A data set, or each part of a `ConcatDataset` once; for the arguments see `ExaminedSet`."""
    return list({each.name: each for each in _examine(dataset, min_size, max_size, roles, tile_size)}.values())


def _examine(
    dataset: LabelledImages, min_size: int, max_size: int, roles: Sequence[str], tile_size: int
) -> Iterable[ExaminedSet]:
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _examine(part, min_size, max_size, roles, tile_size)
    else:
        yield ExaminedSet(dataset, min_size, max_size, roles, tile_size)
