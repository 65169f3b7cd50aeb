"""Data sets: the images and boxes of one annotation file, or of several one after the other.

All that a data set keeps per image or per box is flat, see `engine.data.annotations`.

Shapes: n images, m boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from engine.data.annotations import AnnotationTable, CategoryId, ImageId, group_by_image, unused_ids
from engine.data.formats import coco
from engine.data.image_file import read_image, read_size
from engine.data.image_paths import find_images
from engine.errors import InputError
from engine.log import get_logger
from engine.registry import Registry
from engine.structures import Targets

logger = get_logger(__name__)

DATASET_TYPES = Registry("DATASET_TYPES")
"""Classes of data sets, for `type` in an entry of `DATASETS.CATALOG`; all are constructed like `CocoDataset`."""


class LabelledImages(Protocol):
    """Images with their targets, by index: what samplers and loaders need.

    Attributes:
        name: for messages.
        class_names: label k is class_names[k].
        sizes: (n, 2) int32 (height, width) as stated with the annotations, 0 where they are not.
    """

    name: str
    class_names: list[str]
    sizes: np.ndarray

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, Targets]:
        return self.read(index)

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        """The image, BGR uint8 (H, W, 3), and its targets in its own pixels, clipped to it.

        Raises:
            InputError: the image cannot be read; names the file, the data set and the image id.
        """
        ...

    def image_id(self, index: int) -> ImageId: ...

    @property
    def image_ids(self) -> list[ImageId]:
        """The ids in the order of the images (a new list); those of a `ConcatDataset` may repeat."""
        return [self.image_id(index) for index in range(len(self))]

    def measured_sizes(self) -> np.ndarray:
        """`sizes` with the unstated ones read from the image files, 0 where that fails."""
        ...

    def num_boxes(self, index: int) -> int:
        """Boxes to train on in an image, ignore regions not counted."""
        ...


class DetectionDataset(LabelledImages, Protocol):
    """Also what evaluation and analysis need, which look at one annotation file at a time.

    `CocoDataset` is one. `ConcatDataset` is not: image ids and category ids have a meaning within one file only.

    Attributes:
        category_ids: label k -> category id in the file and in results.
        annotations: all of the file, also what is not trained on. Its categories include those of `class_names` that
            the file lacks.
    """

    category_ids: list[CategoryId]
    annotations: AnnotationTable


@DATASET_TYPES.register("CocoDataset")
class CocoDataset(DetectionDataset):
    """Images and boxes of one COCO file, see `DetectionDataset`.

    Boxes without area and boxes wholly outside their image are not trained on (one warning gives their number); boxes
    that reach outside are clipped to the image as read. Crowd annotations become ignore regions. `annotations` holds
    all of them as written.

    A data set in another format is a subclass whose `load` turns its file into a COCO dictionary, or whose
    `read_annotations` returns the table itself.

    Args:
        name: for messages and output folders.
        img_dir: the folder that file names are relative to.
        class_names: the order of the labels, if it is given from elsewhere (another data set, a checkpoint); matched by
            name. It may hold more classes than the file, not fewer. By default labels ascend with the category ids.
        filter_empty: leave out images without boxes to train on (crowd regions do not count).

    Raises:
        InputError: the file is unusable, or some of its categories are not among `class_names`.
    """

    def __init__(
        self,
        name: str,
        img_dir: str | Path,
        ann_file: str | Path,
        class_names: Sequence[str] | None = None,
        filter_empty: bool = False,
    ) -> None:
        self.name = name
        self.img_dir = Path(img_dir)
        self.ann_file = Path(ann_file)
        table = self.read_annotations()
        self.class_names = list(table.category_names if class_names is None else class_names)
        # Their boxes would have no label, and without them their objects would be trained on as background.
        if unknown := [category for category in table.category_names if category not in self.class_names]:
            raise InputError(
                f"data set {name}: {ann_file} has classes that are not trained: {', '.join(unknown)} "
                f"(known: {', '.join(self.class_names)}); remove them or correct their names"
            )
        self.annotations = _with_classes(table, self.class_names)
        id_of = dict(zip(self.annotations.category_names, self.annotations.category_ids, strict=True))
        self.category_ids = [id_of[class_name] for class_name in self.class_names]
        corners, extents = table.boxes_xywh[:, :2], table.boxes_xywh[:, 2:]
        boxes = np.concatenate([corners, corners + extents], axis=1)  # (m, 4) xyxy
        trained_on = self._has_visible_area(boxes, table.sizes[table.image_rows])  # (m,)
        keep_images = np.ones(len(table.image_ids), dtype=bool)  # (n,)
        if filter_empty:
            positive_rows = table.image_rows[trained_on & ~table.crowd]
            keep_images = np.bincount(positive_rows, minlength=len(keep_images)) > 0
        self._image_rows = np.flatnonzero(keep_images)  # index in this data set -> row of the table
        self._ids, self._file_names = table.image_ids, find_images(name, self.img_dir, table.file_names)
        self.sizes = table.sizes[self._image_rows]
        self._store_boxes(boxes, np.flatnonzero(trained_on & keep_images[table.image_rows]))
        self._measured_sizes: np.ndarray | None = None

    def load(self) -> dict[str, Any]:
        """The content of `ann_file` as a COCO dictionary: `images`, `categories`, `annotations`.

        Raises:
            InputError: the file is unusable.
        """
        return coco.load(self.ann_file)

    def read_annotations(self) -> AnnotationTable:
        """The content of `ann_file` as a table; called once.

        Raises:
            InputError: the file is unusable.
        """
        return coco.to_table(self.load(), self.ann_file)

    @cached_property
    def annotations(self) -> AnnotationTable:
        """All of the file, see `DetectionDataset`. It is set when the file is read; only a pickled copy reads again."""
        return _with_classes(self.read_annotations(), self.class_names)

    def __getstate__(self) -> dict[str, Any]:
        """All but `annotations`: a spawned loader worker is sent a copy of the data set, to read images only."""
        return {key: value for key, value in vars(self).items() if key != "annotations"}

    def _has_visible_area(self, boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """(m,) bool: has an area, some of it inside the image where `sizes` (m, 2) states its size; warns of others."""
        # Of the corners, not of width and height: a width can be too small to make a difference to a very large x.
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(1)
        inside = (boxes[:, 2:] > 0).all(1) & (boxes[:, :2] < sizes[:, ::-1]).all(1)
        outside = (sizes[:, 0] > 0) & ~inside
        for what, bad in (("have no area", ~has_area), ("lie outside their image", has_area & outside)):
            if bad.any():
                logger.warning("%s: %d of %d boxes %s and are not trained on", self.name, bad.sum(), len(bad), what)
        return has_area & ~outside

    def _store_boxes(self, boxes: np.ndarray, rows: np.ndarray) -> None:
        """Keep `rows` of the annotations image by image: those of image i stand at offsets[i] : offsets[i + 1]."""
        table = self.annotations
        images = np.searchsorted(self._image_rows, table.image_rows[rows])
        order, self._offsets = group_by_image(images, len(self))
        rows = rows[order]
        label_of = {class_name: label for label, class_name in enumerate(self.class_names)}
        label_of_row = np.array([label_of[name] for name in table.category_names], dtype=np.int64)
        self._boxes = boxes[rows].astype(np.float32)
        self._labels = label_of_row[table.category_rows[rows]]
        self._ignore = table.crowd[rows]

    def __len__(self) -> int:
        return len(self._image_rows)

    def measured_sizes(self) -> np.ndarray:
        if self._measured_sizes is None:  # the headers are read once
            sizes = self.sizes.copy()
            missing = np.flatnonzero(sizes[:, 0] == 0)
            if len(missing):
                logger.info("%s: reading the sizes of %d images", self.name, len(missing))
            for index in missing.tolist():
                with suppress(InputError):  # reported when the image itself is read
                    sizes[index] = read_size(self.image_path(index))
            self._measured_sizes = sizes
        return self._measured_sizes

    def image_id(self, index: int) -> ImageId:
        return self._ids[self._image_rows[index]]

    def image_path(self, index: int) -> Path:
        return self.img_dir / self._file_names[self._image_rows[index]]

    def num_boxes(self, index: int) -> int:
        return int(np.count_nonzero(~self._ignore[slice(*self._offsets[index : index + 2])]))

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        stated = tuple(self.sizes[index].tolist())
        try:
            image = read_image(self.image_path(index), stated if stated[0] else None)
        except InputError as error:
            raise InputError(f"{error} (data set {self.name}, image id {self.image_id(index)})") from None
        size = image.shape[:2]
        span = slice(*self._offsets[index : index + 2])
        boxes = self._boxes[span].clip(0, [size[1], size[0], size[1], size[0]]).astype(np.float32)
        # The file may be smaller than stated, or no size was stated: some boxes may lie outside only now.
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        targets = Targets(
            boxes=torch.from_numpy(boxes[inside]),
            labels=torch.from_numpy(self._labels[span][inside]),
            ignore=torch.from_numpy(self._ignore[span][inside]),
            image_id=self.image_id(index),
            size=size,
            original_size=size,
        )
        return image, targets


class ConcatDataset(LabelledImages):
    """Several data sets of the same classes, one after the other, see `LabelledImages`.

    Raises:
        InputError: their class names differ; names both data sets and the classes.
    """

    def __init__(self, datasets: Sequence[LabelledImages]) -> None:
        first = datasets[0]
        for other in datasets[1:]:
            if other.class_names != first.class_names:
                raise InputError(
                    f"data sets {first.name} and {other.name} have different classes: "
                    f"{', '.join(first.class_names)} / {', '.join(other.class_names)}; "
                    "train on data sets that have the same ones"
                )
        self.datasets = list(datasets)
        self.name = "+".join(dataset.name for dataset in datasets)
        self.class_names = first.class_names
        self.sizes = np.concatenate([dataset.sizes for dataset in datasets])
        self._starts = np.cumsum([0, *map(len, datasets)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _locate(self, index: int) -> tuple[LabelledImages, int]:
        """The data set that image `index` belongs to, and the index of the image there."""
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.datasets[which], index - int(self._starts[which])

    def measured_sizes(self) -> np.ndarray:
        return np.concatenate([dataset.measured_sizes() for dataset in self.datasets])

    def image_id(self, index: int) -> ImageId:
        dataset, local_index = self._locate(index)
        return dataset.image_id(local_index)

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        dataset, local_index = self._locate(index)
        return dataset.read(local_index)

    def num_boxes(self, index: int) -> int:
        dataset, local_index = self._locate(index)
        return dataset.num_boxes(local_index)


def _with_classes(table: AnnotationTable, class_names: Sequence[str]) -> AnnotationTable:
    """`table` with the classes that the file lacks, so that their ids in results have a meaning.

    They go to the end, so `category_rows` stay as they are.
    """
    lacking = [class_name for class_name in class_names if class_name not in table.category_names]
    return replace(
        table,
        category_ids=[*table.category_ids, *unused_ids(table.category_ids, len(lacking))],
        category_names=[*table.category_names, *lacking],
    )
