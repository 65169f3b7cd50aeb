"""What a data set holds, counted before a run, and what is suspicious about it.

Shapes: n images, m annotations; sizes are (height, width) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.data.dataset import ConcatDataset, DetectionDataset, LabelledImages
from engine.data.sizes import size_faults
from engine.errors import InputError, listed, printable
from engine.log import get_logger, warn_once

logger = get_logger(__name__)

_ROUNDING = 1  # pixel: by how much the sides of boxes differ between tools
_FRACTIONS = (-0.05, 1.05)  # of an image, where boxes may reach a little beyond it
_NEARLY_ALL = 0.9  # of the boxes: a few odd ones hide no mistake
_MANY = 20  # boxes, so that where all of them lie is no chance
_FAR_OUTSIDE = 0.1  # of a side: by how much a box reaches beyond its image if its numbers mean something else
_MOST_CLASSES = 60  # that a log line lists one by one


@dataclass(frozen=True)
class DataSummary:
    """The counts of one data set; boxes are those that are not ignore regions.

    Attributes:
        name: of the data set.
        num_images: images in use.
        num_annotations: boxes and ignore regions in them, as written.
        boxes: class name -> boxes to train on.
        ignore_regions: crowds, and whatever else is neither positive nor negative.
        images_without_boxes: images without a box to train on.
        oddities: counts of what is odd: "without_area" and "outside" (wholly outside their image) are boxes that are
            dropped, "reaching_outside" those that are clipped to their image, "under_a_pixel" those with a side of less
            than one pixel after resizing, "repeated_boxes" those that repeat another one of their image and class;
            "repeated_files" are images of a file that is listed before, "other_sizes" those whose file does not have
            the stated size, "unreadable_files" those whose file is missing or no image.
        faults: one line for each thing that deserves a warning.
        mistake: what makes all boxes useless, and what to do; None if nothing does.
    """

    name: str
    num_images: int
    num_annotations: int
    boxes: dict[str, int]
    ignore_regions: int
    images_without_boxes: int
    oddities: dict[str, int]
    faults: list[str] = field(default_factory=list)
    mistake: str | None = None

    @property
    def num_boxes(self) -> int:
        """Boxes to train on."""
        return sum(self.boxes.values())

    def record(self) -> dict[str, Any]:
        """The counts as plain values, for JSON."""
        names = ("num_images", "images_without_boxes", "num_annotations", "boxes", "ignore_regions")
        return {name: getattr(self, name) for name in names} | self.oddities

    def line(self) -> str:
        """The counts in words, for a log."""
        counts = list(self.boxes.items())
        if len(counts) > _MOST_CLASSES:
            counts = sorted(counts, key=lambda each: each[1])[:10]
        classes = ", ".join(f"{printable(name)[:60]} {count}" for name, count in counts)
        if len(self.boxes) > _MOST_CLASSES:
            classes = f"{len(self.boxes)} classes, the rarest: {classes}"
        return (
            f"data set {self.name}: {self.num_images} images, {self.images_without_boxes} without boxes; "
            f"{self.num_boxes} boxes ({classes}), {self.ignore_regions} to ignore"
        )


def summarize(dataset: LabelledImages, min_size: int, max_size: int) -> list[DataSummary]:
    """The counts of a data set, or of each part of a `ConcatDataset`.

    Args:
        min_size: the short side that images are resized to, pixels.
        max_size: limit of their long side.
    """
    if isinstance(dataset, ConcatDataset):
        return [summary for part in dataset.datasets for summary in summarize(part, min_size, max_size)]
    return [_summarize_one(dataset, min_size, max_size)]


def report(summaries: Sequence[DataSummary]) -> None:
    """Log the counts, and a warning for each fault."""
    for summary in summaries:
        logger.info("%s", summary.line())
        for fault in summary.faults:
            warn_once(f"data set {summary.name}: {fault}")


def report_useless(summaries: Sequence[DataSummary]) -> None:
    """Warn of what `check_trainable` refuses; testing goes on."""
    for summary in summaries:
        if summary.mistake:
            warn_once(f"data set {summary.name}: {summary.mistake}")
        if not summary.num_boxes:
            warn_once(f"data set {summary.name}: there is nothing to find: {_why_nothing(summary)}")


def check_trainable(summaries: Sequence[DataSummary]) -> None:
    """Raise an `InputError` if there is no box to train on, or if a data set writes its boxes in another form."""
    for summary in summaries:
        if summary.mistake:
            raise InputError(f"data set {summary.name}: {summary.mistake}")
    if sum(summary.num_boxes for summary in summaries) == 0:
        reasons = "; ".join(f"data set {summary.name}: {_why_nothing(summary)}" for summary in summaries)
        raise InputError(f"there is no box to train on: {reasons}")


def _summarize_one(dataset: DetectionDataset, min_size: int, max_size: int) -> DataSummary:
    table, ids, stated = dataset.annotations, dataset.image_ids, dataset.sizes
    sizes = dataset.measured_sizes()  # (n, 2)
    if not ids:  # FILTER_EMPTY has left out all images: why?
        ids, stated, sizes = list(table.image_ids), table.sizes, table.sizes
    row_of = {image_id: row for row, image_id in enumerate(table.image_ids)}
    image_rows = np.fromiter((row_of[image_id] for image_id in ids), np.int64, len(ids))
    place_of = np.full(len(table.image_ids), -1, dtype=np.int64)  # row of the table -> index in the data set
    place_of[image_rows] = np.arange(len(image_rows))
    in_use = place_of[table.image_rows] >= 0  # (m,) with FILTER_EMPTY some images are not
    places = place_of[table.image_rows[in_use]]
    boxes_xywh, crowd = table.boxes_xywh[in_use], table.crowd[in_use]
    categories = table.category_rows[in_use]

    boxes = _Boxes(boxes_xywh[~crowd], sizes[places[~crowd]], places[~crowd])
    known = np.maximum(sizes, 1)  # an unknown size makes no box narrow
    scales = np.minimum(min_size / known.min(1), max_size / known.max(1))  # (n,)
    under_a_pixel = boxes.trainable & (boxes.extents < 1 / scales[boxes.images, None]).any(1)
    label_of = {name: label for label, name in enumerate(dataset.class_names)}
    labels = np.array([label_of.get(name, -1) for name in table.category_names], dtype=np.int64)[categories[~crowd]]
    per_class = np.bincount(labels[boxes.trainable], minlength=len(label_of)).tolist()
    with_boxes = np.unique(boxes.images[boxes.trainable])
    names = [table.file_names[row] for row in image_rows.tolist()]
    oddities = {
        "without_area": int((~boxes.has_area).sum()),
        "outside": int((boxes.has_area & boxes.is_outside).sum()),
        "reaching_outside": int((boxes.trainable & boxes.reaches_outside).sum()),
        "under_a_pixel": int(under_a_pixel.sum()),
        "repeated_files": len(names) - len(set(names)),
        "repeated_boxes": _num_repeated(boxes, labels),
        "other_sizes": int(((stated[:, 0] > 0) & (stated != sizes).any(1)).sum()),
        "unreadable_files": dataset.num_unreadable(),
    }
    size_words = size_faults(stated, sizes)
    missing = [name for name in dataset.kept_classes if not per_class[label_of[name]]] if sum(per_class) else []
    return DataSummary(
        name=dataset.name,
        num_images=len(dataset),
        num_annotations=len(crowd),
        boxes=dict(zip(dataset.class_names, per_class, strict=True)),
        ignore_regions=int(crowd.sum()),
        images_without_boxes=len(ids) - len(with_boxes),
        oddities=oddities,
        faults=_faults(oddities, boxes, size_words, missing),
        mistake=_mistake(boxes),
    )


class _Boxes:
    """The boxes of a data set against the sizes of their images.

    Args:
        boxes_xywh: (m, 4) as written.
        sizes: (m, 2) of their images, 0 where they are not known.
        images: (m,) index of the image.
    """

    def __init__(self, boxes_xywh: np.ndarray, sizes: np.ndarray, images: np.ndarray) -> None:
        self.corners, self.extents, self.images = boxes_xywh[:, :2], boxes_xywh[:, 2:], images
        self.sides = sizes[:, ::-1].astype(np.float64)  # (m, 2) width, height
        with np.errstate(over="ignore"):  # 1e308 is a number that JSON may hold
            far = self.far = self.corners + self.extents
        is_known = sizes[:, 0] > 0
        self.has_area = (far > self.corners).all(1)
        self.is_outside = is_known & ((far <= 0).any(1) | (self.corners >= self.sides).any(1))
        self.reaches_outside = is_known & ((self.corners < -_ROUNDING).any(1) | (far > self.sides + _ROUNDING).any(1))
        self.trainable = self.has_area & ~self.is_outside

    def are_relative(self) -> np.ndarray:
        """(m,) bool: all four numbers are fractions, as of the width and height."""
        values = np.concatenate([self.corners, self.extents], axis=1)  # (m, 4)
        are_fractions = ((values >= _FRACTIONS[0]) & (values <= _FRACTIONS[1])).all(1)
        return self.has_area & are_fractions & (self.sides > 8).all(1)

    def look_like_percentages(self) -> bool:
        """Whether many boxes fill the first 100 pixels of images at least twice as large, and none goes further."""
        far = self.far[self.has_area & (self.sides >= 200).all(1)]
        return len(far) >= _MANY and bool((far <= 100 * _FRACTIONS[1]).all() and (far.max(0) > 90).all())

    def fit_as_corners(self) -> np.ndarray:
        """(m,) bool: with width and height taken for the right and lower sides, the box lies within its image."""
        is_known = self.sides[:, :1] > 0
        return (is_known & (self.extents > self.corners) & (self.extents <= self.sides + _ROUNDING)).all(1)

    def share_reaching_far(self) -> float:
        """The share of the images with boxes that have one far beyond their border."""
        known = self.sides[:, 0] > 0
        reaches_far = known & self.trainable & (self.far > self.sides * (1 + _FAR_OUTSIDE)).any(1)
        return len(np.unique(self.images[reaches_far])) / max(len(np.unique(self.images[known])), 1)


def _num_repeated(boxes: _Boxes, labels: np.ndarray) -> int:
    columns = (boxes.images, labels, *boxes.corners.T, *boxes.extents.T)
    order = np.lexsort(columns)
    is_equal = [column[order][1:] == column[order][:-1] for column in columns]
    return int(np.logical_and.reduce(is_equal).sum()) if len(order) else 0


def _mistake(boxes: _Boxes) -> str | None:
    relative, with_area = int(boxes.are_relative().sum()), int(boxes.has_area.sum())
    if relative and relative >= _NEARLY_ALL * with_area:
        return (
            f"{relative} of {with_area} boxes lie between 0 and 1: they are relative to the size of the image; bbox "
            "must be [x, y, width, height] in pixels: multiply by the width and height of the image"
        )
    count = len(boxes.corners)
    fitting = int(boxes.fit_as_corners().sum())
    if count and fitting >= _NEARLY_ALL * count and boxes.share_reaching_far() > 0.5:
        return (
            f"most images have boxes that reach far beyond them, but {fitting} of {count} fit as [x1, y1, x2, y2]: "
            "they are corner coordinates; bbox must be [x, y, width, height]: subtract x1 from x2 and y1 from y2"
        )
    return None


def _faults(
    oddities: dict[str, int], boxes: _Boxes, size_words: list[str], classes_without_boxes: list[str]
) -> list[str]:
    total, lost = len(boxes.corners), oddities["without_area"] + oddities["outside"]
    found = []
    if oddities["unreadable_files"]:
        found.append(f"{oddities['unreadable_files']} image files are missing or cannot be read")
    if size_words:
        is_resized = any("resized" in words for words in size_words)
        advice = "; boxes that belong to the stated size must be scaled with it" if is_resized else ""
        found.append(
            f"{oddities['other_sizes']} image files do not have the stated size: "
            f"{', '.join(size_words)}; the size of the file is used{advice}"
        )
    for what, text in (
        ("without_area", "have no area and are dropped"),
        ("outside", "lie outside their image and are dropped"),
        ("reaching_outside", "reach beyond their image and are clipped"),
        ("under_a_pixel", "are narrower than a pixel after resizing"),
        ("repeated_boxes", "repeat another box of their image and class"),
    ):
        if oddities[what]:
            found.append(f"{oddities[what]} of {total} boxes {text}")
    if oddities["repeated_files"]:
        found.append(f"{oddities['repeated_files']} images have the file name of an earlier image")
    if relative := int(boxes.are_relative().sum()):
        found.append(f"{relative} of {total} boxes lie between 0 and 1, as if they were relative to the image")
    if boxes.look_like_percentages():
        found.append("no box reaches beyond 100 pixels in images of 200 and more: are they percentages?")
    if total and lost >= total / 2:
        found.append(f"{lost} of {total} boxes are lost{_why_lost(oddities, boxes, size_words)}")
    elif boxes.share_reaching_far() > 0.5:
        found.append("most images have boxes that reach far beyond them; bbox must be [x, y, width, height] in pixels")
    if classes_without_boxes:
        more = f" and {len(classes_without_boxes) - 10} more" if len(classes_without_boxes) > 10 else ""
        found.append(f"classes without boxes: {listed(classes_without_boxes[:10])}{more}")
    return found


def _why_lost(oddities: dict[str, int], boxes: _Boxes, size_words: list[str]) -> str:
    if oddities["without_area"] > oddities["outside"]:
        return ": their width or height is not positive; bbox must be [x, y, width, height]"
    if any("resized" in words for words in size_words):
        return ": the images were resized after labelling; scale the boxes too, or use the original images"
    is_outside = boxes.has_area & boxes.is_outside
    (x, y), (width, height) = boxes.far[is_outside].max(0), boxes.sides[is_outside].max(0)
    return (
        f": they reach to x {x:g}, y {y:g}, but their images end at {width:g}, {height:g}; were the images resized or "
        "cropped after labelling?"
    )


def _why_nothing(summary: DataSummary) -> str:
    if not summary.num_annotations:
        return (
            "there are no annotations; check whether `annotations` is empty, missing or misspelt in its file, and "
            "DATASETS.CLASSES"
        )
    if summary.ignore_regions == summary.num_annotations:
        return f"all {summary.num_annotations} annotations are ignore regions (iscrowd 1); boxes need iscrowd 0"
    return (
        f"of {summary.num_annotations} annotations {summary.ignore_regions} are ignore regions, "
        f"{summary.oddities['without_area']} have no area, {summary.oddities['outside']} lie outside their image"
    )
