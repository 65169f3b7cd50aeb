"""Data sets: the images and boxes of one annotation file, or of several one after the other.

All that a data set keeps per image or per box is flat, see `engine.data.annotations`.

Shapes: n images, m boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch

from engine.data.annotations import AnnotationTable, CategoryId, ImageId, group_by_image
from engine.data.classes import (
    NO_NAME,
    ClassMap,
    check_classes,
    mapped_classes,
    select_classes,
    unknown_names,
    with_class_names,
)
from engine.data.formats import coco
from engine.data.image_file import read_image
from engine.data.image_paths import find_file_names
from engine.data.reading import DEFAULT, Reading
from engine.data.sizes import measure_sizes
from engine.data.value_range import ValueRange
from engine.errors import InputError, shown
from engine.registry import Registry
from engine.structures import Targets

DATASET_TYPES = Registry("DATASET_TYPES")
"""Classes of data sets, for `type` in an entry of `DATASETS.CATALOG`; all are constructed like `CocoDataset`."""


class LabelledImages(Protocol):
    """Images with their targets, by index: what samplers and loaders need.

    Attributes:
        name: for messages.
        class_names: label k is class_names[k].
        sizes: (n, 2) int32 (height, width) as stated with the annotations, 0 where they are not.
        value_range: what becomes 0 and 255 in images of more than 8 bits; None: not known, so each has its own.
        channels, orientation: see `engine.data.reading.Reading`.
    """

    name: str
    class_names: list[str]
    sizes: np.ndarray
    value_range: ValueRange | None = None
    channels: int = DEFAULT.channels
    orientation: str = DEFAULT.orientation

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[np.ndarray, Targets]:
        return self.read(index)

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        """The image as pixels (H, W, C), see `read_image`, and its targets in its own pixels, clipped to it.

        Raises:
            InputError: the image cannot be read; names the file, the data set and the image id.
        """
        ...

    @property
    def reading(self) -> Reading:
        """How its files become pixels, for `read_image`."""
        return Reading(self.value_range, self.channels, self.orientation)

    def targets(self, index: int, size: tuple[int, int]) -> Targets:
        """Those of an image of `size` (height, width), clipped to it; without reading the image where possible."""
        return self.read(index)[1]

    def image_id(self, index: int) -> ImageId: ...

    def image_path(self, index: int) -> Path | None:
        """The file of an image; None if it has none."""
        return None

    @property
    def image_ids(self) -> list[ImageId]:
        """The ids in the order of the images (a new list); those of a `ConcatDataset` may repeat."""
        return [self.image_id(index) for index in range(len(self))]

    def measured_sizes(self) -> np.ndarray:
        """(n, 2) int32, `sizes` corrected from the headers of the image files, see `engine.data.sizes`."""
        ...

    def num_unreadable(self) -> int:
        """How many of these headers cannot be read."""
        return 0

    def num_boxes(self, index: int) -> int:
        """Boxes to train on in an image, ignore regions not counted."""
        ...

    def labels(self, index: int) -> np.ndarray:
        """(M,) int64 labels of the boxes to train on in an image, ignore regions left out; see `num_boxes`."""
        ...

    def repeat_of(self, index: int) -> float:
        """How often an image is used in an epoch on average, as its data set says (`DATASETS.CATALOG.NAME.repeat`)."""
        return 1.0


class DetectionDataset(LabelledImages, Protocol):
    """Also what evaluation and analysis need, which look at one annotation file at a time.

    `CocoDataset` is one. `ConcatDataset` is not: image ids and category ids have a meaning within one file only.

    Attributes:
        category_ids: label k -> category id in the file and in results.
        kept_classes: those of `class_names` whose boxes count.
        annotations: all of the file, also what is not trained on. Its categories include those of `class_names` that
            the file lacks.
        merged_ids: ids of categories of the file that are part of another one (`DATASETS.CLASS_MAP`) -> its id.
    """

    category_ids: list[CategoryId]
    kept_classes: list[str]
    annotations: AnnotationTable
    merged_ids: Mapping[CategoryId, CategoryId] = MappingProxyType({})


@DATASET_TYPES.register("CocoDataset")
class CocoDataset(DetectionDataset):
    """Images and boxes of one annotation file (or folder of them), by default a COCO file, see `DetectionDataset`.

    Boxes without area and boxes wholly outside the image as read are not trained on; boxes that reach outside are
    clipped to it (`engine.data.summary` counts them). Crowd annotations become ignore regions. `annotations` holds all
    of them as written.

    Other formats have a `reader`; see `engine.data.annotations.FORMATS`. A subclass may instead have a `load` that
    turns its file into a COCO dictionary, or a `read_annotations` that returns the table itself.

    Args:
        name: for messages and output folders.
        img_dir: the folder that file names are relative to.
        class_names: the order of the labels, if it is given from elsewhere (another data set, a checkpoint); matched by
            name. It may hold more classes than the file. By default labels ascend with the category ids.
        filter_empty: leave out images without boxes to train on (crowd regions do not count).
        kept_classes: the only classes whose boxes count, among `class_names`; all of them by default.
        other_classes: what becomes of the boxes of all other classes, one of `engine.data.classes.OTHER_CLASSES`.
        class_map: new names for the classes of the file; all other names here are new ones.
        reader: called with `ann_file` and `img_dir` for the annotations; by default that of COCO files.

    Raises:
        InputError: the file is unusable, some of its categories are not among `class_names` while `other_classes` is
            "refuse", or one of `kept_classes` is unknown.
    """

    repeat = 1.0
    """See `repeat_of`."""
    file_class_names: list[str]
    """The names of the classes as the file has them."""

    def __init__(
        self,
        name: str,
        img_dir: str | Path,
        ann_file: str | Path,
        class_names: Sequence[str] | None = None,
        filter_empty: bool = False,
        kept_classes: Sequence[str] = (),
        other_classes: str = "refuse",
        class_map: ClassMap | None = None,
        reader: Callable[[Path, Path], AnnotationTable] | None = None,
    ) -> None:
        self.name, self._reader = name, reader
        self.img_dir = Path(img_dir)
        self.ann_file = Path(ann_file)
        self._other_classes, self._class_map = other_classes, class_map or ClassMap()
        self._known_names = [*(class_names or ()), *kept_classes]
        table = self._read_mapped()
        own_names = [each for each in table.category_names if each != NO_NAME]
        self.class_names = list(class_names or kept_classes or own_names)
        self.kept_classes = list(kept_classes or self.class_names)
        if other_classes == "refuse":
            self._refuse_other_classes(own_names)
        check_classes(kept_classes, class_names or own_names, "the model" if class_names else str(ann_file))
        self.annotations, num_own = self._selected(table)
        table = self.annotations
        id_of = dict(zip(table.category_names, table.category_ids, strict=True))
        self.category_ids = [id_of[class_name] for class_name in self.class_names]
        corners, extents = table.boxes_xywh[:, :2], table.boxes_xywh[:, 2:]
        with np.errstate(over="ignore"):  # 1e308 is a number that JSON may hold
            boxes = np.concatenate([corners, corners + extents], axis=1)  # (m, 4) xyxy
        # Of the corners, not of width and height: a width can be too small to make a difference to a very large x.
        trained_on = (boxes[:, 2:] > boxes[:, :2]).all(1) & (np.arange(len(boxes)) < num_own)  # (m,)
        keep_images = np.ones(len(table.image_ids), dtype=bool)  # (n,)
        if filter_empty:
            positive_rows = table.image_rows[trained_on & ~table.crowd]
            keep_images = np.bincount(positive_rows, minlength=len(keep_images)) > 0
        self._image_rows = np.flatnonzero(keep_images)  # index in this data set -> row of the table
        self._ids, self._file_names = table.image_ids, find_file_names(name, self.img_dir, table.file_names)
        self.sizes = table.sizes[self._image_rows]
        self._store_boxes(boxes, np.flatnonzero(trained_on & keep_images[table.image_rows]))
        self._measured: tuple[np.ndarray, np.ndarray] | None = None

    def _read_mapped(self) -> AnnotationTable:
        """The content of the file under the new names of its classes."""
        table = self.read_annotations()
        self.file_class_names = list(table.category_names)
        name = f"data set {self.name}"
        table, self.merged_ids = mapped_classes(table, self._class_map, self._known_names, name, self.ann_file)
        return table

    def _refuse_other_classes(self, own_names: Sequence[str]) -> None:
        # Their boxes would have no label, and without them their objects would be trained on as background.
        if unknown := unknown_names(own_names, self.class_names):
            raise InputError(
                f"data set {self.name}: {self.ann_file} has classes that are not trained: "
                f"{', '.join(map(shown, unknown))} (known: {', '.join(map(shown, self.class_names))}); remove them, "
                "correct their names, or name the classes to train in DATASETS.CLASSES"
            )

    def _selected(self, table: AnnotationTable) -> tuple[AnnotationTable, int]:
        """`table` under the names of the labels, with the classes that count; see `select_classes`."""
        table = with_class_names(table, self.class_names)
        if self._other_classes != "refuse":
            return select_classes(table, self.kept_classes, self._other_classes)
        if NO_NAME in table.category_names:
            return select_classes(table, self.kept_classes, self._class_map.nameless)
        return table, len(table.crowd)

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
        if self._reader is not None:
            return self._reader(self.ann_file, self.img_dir)
        return coco.to_table(self.load(), self.ann_file)

    @cached_property
    def annotations(self) -> AnnotationTable:
        """All of the file, see `DetectionDataset`. It is set when the file is read; only a pickled copy reads again."""
        return self._selected(self._read_mapped())[0]

    def __getstate__(self) -> dict[str, Any]:
        """All but `annotations`: a spawned loader worker is sent a copy of the data set, to read images only."""
        return {key: value for key, value in vars(self).items() if key != "annotations"}

    def _store_boxes(self, boxes: np.ndarray, rows: np.ndarray) -> None:
        """Keep `rows` of the annotations image by image: those of image i stand at offsets[i] : offsets[i + 1]."""
        table = self.annotations
        images = np.searchsorted(self._image_rows, table.image_rows[rows])
        order, self._offsets = group_by_image(images, len(self))
        rows = rows[order]
        label_of = {class_name: label for label, class_name in enumerate(self.class_names)}
        label_of_row = np.array([label_of.get(name, -1) for name in table.category_names], dtype=np.int64)
        with np.errstate(over="ignore"):
            self._boxes = boxes[rows].astype(np.float32)
        self._labels = label_of_row[table.category_rows[rows]]
        self._ignore = table.crowd[rows]

    def __len__(self) -> int:
        return len(self._image_rows)

    def measured_sizes(self) -> np.ndarray:
        return self._measure()[0]

    def num_unreadable(self) -> int:
        return len(self._measure()[1])

    def unreadable_images(self) -> list[int]:
        """The indices of the images whose headers cannot be read."""
        return self._measure()[1].tolist()

    def _measure(self) -> tuple[np.ndarray, np.ndarray]:
        if self._measured is None:  # the headers are read once
            self._measured = measure_sizes(self.image_path, self.sizes, self.orientation)
        return self._measured

    def image_id(self, index: int) -> ImageId:
        return self._ids[self._image_rows[index]]

    def image_path(self, index: int) -> Path:
        return self.img_dir / self._file_names[self._image_rows[index]]

    def num_boxes(self, index: int) -> int:
        return int(np.count_nonzero(~self._ignore[slice(*self._offsets[index : index + 2])]))

    def labels(self, index: int) -> np.ndarray:
        span = slice(*self._offsets[index : index + 2])
        return self._labels[span][~self._ignore[span]]

    def repeat_of(self, index: int) -> float:
        return self.repeat

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        stated = tuple(self.sizes[index].tolist())
        try:
            image = read_image(self.image_path(index), stated if stated[0] else None, self.reading)
        except InputError as error:
            raise InputError(f"{error} (data set {self.name}, image id {self.image_id(index)})") from None
        return image, self.targets(index, image.shape[:2])

    def targets(self, index: int, size: tuple[int, int]) -> Targets:
        span = slice(*self._offsets[index : index + 2])
        boxes = self._boxes[span].clip(0, [size[1], size[0], size[1], size[0]]).astype(np.float32)
        # By the size of the file, whatever the annotations state.
        inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return Targets(
            boxes=torch.from_numpy(boxes[inside]),
            labels=torch.from_numpy(self._labels[span][inside]),
            ignore=torch.from_numpy(self._ignore[span][inside]),
            image_id=self.image_id(index),
            size=size,
            original_size=size,
        )


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

    @property
    def reading(self) -> Reading:
        return self.datasets[0].reading

    @property
    def value_range(self) -> ValueRange | None:
        return self.datasets[0].value_range

    @value_range.setter
    def value_range(self, value_range: ValueRange | None) -> None:
        for dataset in self.datasets:
            dataset.value_range = value_range

    def _locate(self, index: int) -> tuple[LabelledImages, int]:
        """The data set that image `index` belongs to, and the index of the image there."""
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.datasets[which], index - int(self._starts[which])

    def measured_sizes(self) -> np.ndarray:
        return np.concatenate([dataset.measured_sizes() for dataset in self.datasets])

    def image_id(self, index: int) -> ImageId:
        dataset, local_index = self._locate(index)
        return dataset.image_id(local_index)

    def image_path(self, index: int) -> Path | None:
        dataset, local_index = self._locate(index)
        return dataset.image_path(local_index)

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        dataset, local_index = self._locate(index)
        return dataset.read(local_index)

    def targets(self, index: int, size: tuple[int, int]) -> Targets:
        dataset, local_index = self._locate(index)
        return dataset.targets(local_index, size)

    def num_boxes(self, index: int) -> int:
        dataset, local_index = self._locate(index)
        return dataset.num_boxes(local_index)

    def labels(self, index: int) -> np.ndarray:
        dataset, local_index = self._locate(index)
        return dataset.labels(local_index)

    def repeat_of(self, index: int) -> float:
        dataset, local_index = self._locate(index)
        return dataset.repeat_of(local_index)
