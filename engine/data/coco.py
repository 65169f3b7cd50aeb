"""COCO-format data sets, held as flat arrays that forked loader workers share without copying.

(Python counts references inside each object, so merely reading a list of objects copies its memory
pages into every worker.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from engine.data import annotations as annotation_tables
from engine.data import coco_json
from engine.data.coco_json import AnnotationTable, ImageId
from engine.data.image_file import read_image, read_size
from engine.errors import InputError
from engine.log import get_logger
from engine.registry import Registry
from engine.structures import Targets

logger = get_logger(__name__)

DATASET_TYPES = Registry("DATASET_TYPES")
"""Classes of data sets, for `type` in an entry of `DATASETS.CATALOG`; they are built as `CocoDataset` is."""


class DetectionDataset(Protocol):
    """What samplers and loaders ask of a data set; `CocoDataset` and `ConcatDataset` are such."""

    name: str
    class_names: list[str]

    def __len__(self) -> int: ...

    def image_id(self, index: int) -> ImageId: ...

    def read(self, index: int) -> tuple[np.ndarray, Targets]: ...

    @property
    def sizes(self) -> np.ndarray: ...

    def measured_sizes(self) -> np.ndarray: ...


class StringTable:
    """An immutable list of strings in two arrays: all bytes, and where each string begins."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> str:
        piece = self._bytes[self._offsets[index] : self._offsets[index + 1]]
        return piece.tobytes().decode("utf-8", "surrogateescape")


@DATASET_TYPES.register("CocoDataset")
class CocoDataset(Dataset):
    """Images and boxes of one COCO file.

    Boxes without area and boxes wholly outside their image are not trained on (counted, one
    warning); boxes that reach outside are clipped to the image as read. Crowd annotations become
    ignore regions. `coco_dict` still holds all of them.

    A data set in another format is a subclass whose `load` turns its file into a COCO dictionary.

    Args:
        name: for messages and output folders.
        img_dir: what `file_name` is relative to.
        ann_file: the annotation file.
        class_names: the order of the labels, if it is given from elsewhere (another data set, a
            checkpoint); matched by name. It may hold more classes than the file, not fewer.
        filter_empty: leave out images without boxes to train on (crowd regions do not count).

    Attributes:
        class_names: label k is class_names[k]; by ascending category id unless given.
        category_ids: label k -> category id in the file.

    Raises:
        InputError: the file is unusable, or its categories are not among `class_names`.
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
        data = self.load()
        file_ids, file_names = coco_json.parse_categories(data, self.ann_file)
        self.class_names, self.category_ids = _align_classes(name, file_ids, file_names, class_names, self.ann_file)
        images = coco_json.parse_images(data, self.ann_file)
        annotations = coco_json.parse_annotations(data, self.ann_file, images.ids, file_ids)
        boxes = _boxes_xyxy(annotations)
        usable = self._usable(boxes, images.sizes[annotations.image_rows])
        rows = np.flatnonzero(usable)
        keep_images = np.ones(len(images.ids), dtype=bool)
        if filter_empty:
            trained_on = annotations.image_rows[rows[~annotations.crowd[rows]]]
            keep_images = np.bincount(trained_on, minlength=len(images.ids)) > 0
            rows = rows[keep_images[annotations.image_rows[rows]]]
        self._store_images(images, np.flatnonzero(keep_images))
        self._store_boxes(boxes, annotations, rows, np.cumsum(keep_images) - 1)
        self._measured_sizes: np.ndarray | None = None
        self.annotations = _table_of(data, images, annotations, file_ids, file_names)

    def load(self) -> dict[str, Any]:
        """The content of `ann_file` as a COCO dictionary: `images`, `annotations`, `categories`.

        Raises:
            InputError: the file is unusable.
        """
        return coco_json.load_coco_json(self.ann_file)

    def _usable(self, boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """(m,) bool: has an area, and some of it inside the image where its size is stated."""
        has_area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        size_known = sizes[:, 0] > 0
        inside = (boxes[:, 2:] > 0).all(1) & (boxes[:, :2] < sizes[:, ::-1]).all(1)
        outside = size_known & ~inside
        for what, bad in (
            ("have no area", ~has_area),
            ("lie outside their image", has_area & outside),
        ):
            if bad.any():
                logger.warning(
                    "%s: %d of %d boxes %s and are not trained on",
                    self.name,
                    bad.sum(),
                    len(bad),
                    what,
                )
        return has_area & ~outside

    def _store_images(self, images: coco_json.ImageTable, rows: np.ndarray) -> None:
        ids = [images.ids[row] for row in rows.tolist()]
        is_text = bool(ids) and isinstance(ids[0], str)
        self._ids: StringTable | np.ndarray = StringTable(ids) if is_text else np.asarray(ids, dtype=np.int64)
        self._file_names = StringTable(images.file_names[row] for row in rows.tolist())
        self._sizes = images.sizes[rows]

    def _store_boxes(
        self,
        boxes: np.ndarray,
        annotations: AnnotationTable,
        rows: np.ndarray,
        new_image_rows: np.ndarray,
    ) -> None:
        """Image i has rows offsets[i]:offsets[i + 1] of the arrays, in the order of the file."""
        image_rows = new_image_rows[annotations.image_rows[rows]]
        order = np.argsort(image_rows, kind="stable")
        rows = rows[order]
        label_of = {category_id: label for label, category_id in enumerate(self.category_ids)}
        unique_ids, inverse = np.unique(annotations.category_ids[rows], return_inverse=True)
        labels = np.array([label_of[category_id] for category_id in unique_ids.tolist()], dtype=np.int64)
        self._boxes = boxes[rows].astype(np.float32)
        self._labels = labels[inverse.reshape(-1)] if len(rows) else np.zeros(0, np.int64)
        self._ignore = annotations.crowd[rows]
        counts = np.bincount(image_rows, minlength=len(self))
        self._offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Targets]:
        return self.read(index)

    @property
    def image_ids(self) -> list[ImageId]:
        """The ids in the order of the data set (a new list)."""
        return [self.image_id(index) for index in range(len(self))]

    @property
    def sizes(self) -> np.ndarray:
        """(n, 2) int32, (height, width) as the file states them, 0 where it does not."""
        return self._sizes

    def measured_sizes(self) -> np.ndarray:
        """`sizes` with the unstated ones read from the image headers, once; 0 where that fails."""
        if self._measured_sizes is None:
            sizes = self._sizes.copy()
            missing = np.flatnonzero(sizes[:, 0] == 0)
            if len(missing):
                logger.info("%s: reading the sizes of %d images", self.name, len(missing))
            for index in missing.tolist():
                try:
                    sizes[index] = read_size(self.image_path(index))
                except InputError:  # said when the image itself is read
                    continue
            self._measured_sizes = sizes
        return self._measured_sizes

    def image_id(self, index: int) -> ImageId:
        value = self._ids[index]
        return value if isinstance(value, str) else int(value)

    def image_path(self, index: int) -> Path:
        return self.img_dir / self._file_names[index]

    def num_boxes(self, index: int) -> int:
        """Boxes to train on in an image, ignore regions not counted."""
        return int(np.count_nonzero(~self._ignore[self._offsets[index] : self._offsets[index + 1]]))

    def read(self, index: int) -> tuple[np.ndarray, Targets]:
        """The image, BGR uint8 (H, W, 3), and its targets in its own pixels, clipped to it.

        Raises:
            InputError: the image cannot be read; names the file, the data set and the image id.
        """
        stated = tuple(self._sizes[index].tolist())
        try:
            image = read_image(self.image_path(index), stated if stated[0] else None)
        except InputError as error:
            raise InputError(f"{error} (data set {self.name}, image id {self.image_id(index)})") from None
        size = image.shape[:2]
        span = slice(int(self._offsets[index]), int(self._offsets[index + 1]))
        boxes = self._boxes[span].clip(0, [size[1], size[0], size[1], size[0]]).astype(np.float32)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        targets = Targets(
            boxes=torch.from_numpy(boxes[inside]),
            labels=torch.from_numpy(self._labels[span][inside]),
            ignore=torch.from_numpy(self._ignore[span][inside]),
            image_id=self.image_id(index),
            size=size,
            original_size=size,
        )
        return image, targets

    def coco_dict(self) -> dict[str, Any]:
        """The annotation file, read again and completed for pycocotools; no box is dropped.

        Classes that only `class_names` knows are added to its categories, so that ids in results
        have a meaning.
        """
        data = coco_json.complete_for_pycocotools(self.load())
        written = {category["id"] for category in data["categories"]}
        data["categories"] = data["categories"] + [
            {"id": category_id, "name": name}
            for category_id, name in zip(self.category_ids, self.class_names, strict=True)
            if category_id not in written
        ]
        return data


class ConcatDataset(Dataset):
    """Several data sets of the same classes, one after the other.

    Raises:
        InputError: their class names differ; names both data sets and the classes.
    """

    def __init__(self, datasets: Sequence[DetectionDataset]) -> None:
        first = datasets[0]
        for other in datasets[1:]:
            if other.class_names != first.class_names:
                raise InputError(
                    f"data sets {first.name} and {other.name} have different classes: "
                    f"{', '.join(first.class_names)} / {', '.join(other.class_names)}; "
                    "train on sets that agree"
                )
        self.datasets = list(datasets)
        self.name = "+".join(dataset.name for dataset in datasets)
        self.class_names = first.class_names
        self._starts = np.cumsum([0, *map(len, datasets)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[np.ndarray, Targets]:
        return self.read(index)

    def _locate(self, index: int) -> tuple[DetectionDataset, int]:
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.datasets[which], index - int(self._starts[which])

    @property
    def image_ids(self) -> list[ImageId]:
        """The ids set by set; two sets may use the same one."""
        return [image_id for dataset in self.datasets for image_id in dataset.image_ids]

    @property
    def sizes(self) -> np.ndarray:
        return np.concatenate([dataset.sizes for dataset in self.datasets])

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


def _table_of(
    data: dict[str, Any],
    images: coco_json.ImageTable,
    annotations: AnnotationTable,
    file_ids: list[int],
    file_names: list[str],
) -> annotation_tables.AnnotationTable:
    """Temporary, until data sets are built from such a table."""
    boxes = annotations.boxes_xywh
    areas = boxes[:, 2] * boxes[:, 3]
    for row, annotation in enumerate(data["annotations"]):
        if coco_json.is_finite_number(annotation.get("area")):
            areas[row] = annotation["area"]
    return annotation_tables.AnnotationTable(
        image_ids=images.ids,
        file_names=images.file_names,
        sizes=images.sizes,
        category_ids=file_ids,
        category_names=file_names,
        image_rows=annotations.image_rows,
        category_rows=np.searchsorted(file_ids, annotations.category_ids),
        boxes_xywh=boxes,
        areas=areas,
        crowd=annotations.crowd,
    )


def _boxes_xyxy(annotations: AnnotationTable) -> np.ndarray:
    boxes = annotations.boxes_xywh.copy()
    boxes[:, 2:] += boxes[:, :2]
    # Very large numbers round to no extent; a width below zero must not become one.
    boxes[(annotations.boxes_xywh[:, 2:] <= 0).any(1), 2:] = -np.inf
    return boxes


def _align_classes(
    name: str,
    file_ids: list[int],
    file_names: list[str],
    class_names: Sequence[str] | None,
    ann_file: Path,
) -> tuple[list[str], list[int]]:
    """Class names and their category ids; a class that the file lacks gets an unused id."""
    if class_names is None:
        return file_names, file_ids
    unknown = [category for category in file_names if category not in class_names]
    if unknown:
        raise InputError(
            f"data set {name}: {ann_file} has classes that are not trained: {', '.join(unknown)} "
            f"(known: {', '.join(class_names)}); remove them or correct their names"
        )
    id_of = dict(zip(file_names, file_ids, strict=True))
    fresh = max(file_ids) + 1
    ids = []
    for class_name in class_names:
        if class_name not in id_of:
            id_of[class_name] = fresh
            fresh += 1
        ids.append(id_of[class_name])
    return list(class_names), ids
