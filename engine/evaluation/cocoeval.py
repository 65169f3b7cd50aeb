"""pycocotools' matching, fed from flat arrays. Only this file builds its objects.

Shapes: n images, B boxes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.data.annotations import AnnotationTable
from engine.errors import InputError

_UNKNOWN, _NOT_EVALUATED = -1, -2


@dataclass(frozen=True)
class SortedBoxes:
    """Ground truth or detections in the order in which pycocotools visits them.

    That is by label, then by image id; within a class of an image, annotations keep their order and detections
    descend by score. This order decides which of several detections of equal score is matched first.

    Attributes:
        source_rows: (B,) int64, index into the annotations or results that the boxes come from.
        image_rows: (B,) int64, index into `AnnotationTable.image_ids`.
        labels: (B,) int64, 0..K-1.
        boxes_xywh: (B, 4) float64, pixels.
        areas: (B,) float64, square pixels.
        crowd: (B,) bool, all False for detections.
        scores: (B,) float64, all 0 for ground truth.
    """

    source_rows: np.ndarray
    image_rows: np.ndarray
    labels: np.ndarray
    boxes_xywh: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    scores: np.ndarray


def labels_of_annotations(annotations: AnnotationTable, category_ids: Sequence[int]) -> np.ndarray:
    """(m,) int64 label of each annotation, -1 where its category is not in `category_ids` (label k -> category id)."""
    label_of = {category_id: label for label, category_id in enumerate(category_ids)}
    label_of_row = np.array([label_of.get(id_, _UNKNOWN) for id_ in annotations.category_ids], dtype=np.int64)
    return label_of_row[annotations.category_rows]


def sorted_ground_truth(annotations: AnnotationTable, category_ids: Sequence[int]) -> SortedBoxes:
    """The annotations of the categories `category_ids` (label k -> category id)."""
    labels = labels_of_annotations(annotations, category_ids)  # (m,)
    rows = np.flatnonzero(labels >= 0)
    places = _image_places(annotations)[annotations.image_rows[rows]]
    rows = rows[np.lexsort((places, labels[rows]))]  # stable: equal keys keep the order of the file
    return SortedBoxes(
        source_rows=rows,
        image_rows=annotations.image_rows[rows],
        labels=labels[rows],
        boxes_xywh=annotations.boxes_xywh[rows],
        areas=annotations.areas[rows],
        crowd=annotations.crowd[rows],
        scores=np.zeros(len(rows)),
    )


def sorted_detections(
    annotations: AnnotationTable, results: Sequence[Mapping[str, Any]], category_ids: Sequence[int]
) -> SortedBoxes:
    """The COCO result entries of the categories `category_ids` (label k -> category id).

    Entries of other categories of the annotation file are left out.

    Raises:
        InputError: an entry names an image or category that the annotations do not have.
    """
    row_of_image = {image_id: row for row, image_id in enumerate(annotations.image_ids)}
    label_of = dict.fromkeys(annotations.category_ids, _NOT_EVALUATED)
    label_of |= {category_id: label for label, category_id in enumerate(category_ids)}
    image_rows = np.array([row_of_image.get(entry["image_id"], _UNKNOWN) for entry in results], dtype=np.int64)
    labels = np.array([label_of.get(entry["category_id"], _UNKNOWN) for entry in results], dtype=np.int64)
    unknown = (labels != _NOT_EVALUATED) & ((image_rows == _UNKNOWN) | (labels == _UNKNOWN))
    if unknown.any():
        index = int(np.argmax(unknown))
        key = "image_id" if image_rows[index] == _UNKNOWN else "category_id"
        raise InputError(
            f"result {index}: {key} {results[index][key]!r} is not in the annotations;"
            " evaluate on the data set that the results were made on"
        )
    # Arrays of all entries before they are sorted: to visit 500,000 dictionaries in another order takes a second.
    scores = np.array([entry["score"] for entry in results], dtype=np.float64)
    boxes_xywh = np.array([entry["bbox"] for entry in results], dtype=np.float64).reshape(-1, 4)
    rows = np.flatnonzero(labels >= 0)
    # lexsort is stable: detections of equal score keep the order of the results
    rows = rows[np.lexsort((-scores[rows], _image_places(annotations)[image_rows[rows]], labels[rows]))]
    return SortedBoxes(
        source_rows=rows,
        image_rows=image_rows[rows],
        labels=labels[rows],
        boxes_xywh=boxes_xywh[rows],
        areas=boxes_xywh[rows, 2] * boxes_xywh[rows, 3],
        crowd=np.zeros(len(rows), dtype=bool),
        scores=scores[rows],
    )


def run_cocoeval(
    annotations: AnnotationTable,
    ground_truth: SortedBoxes,
    detections: SortedBoxes,
    num_classes: int,
    max_dets: Sequence[int],
    iou_thresholds: Sequence[float] | None = None,
    all_areas: bool = True,
) -> COCOeval:
    """Match detections with ground truth in each image and class.

    Row r of `ground_truth` or `detections` has the id r + 1 in the returned object, and label k the category id k + 1:
    pycocotools takes an annotation whose id is 0 for "no match", and cannot sort int and str image ids together.

    Args:
        annotations: for the images, those without boxes included.
        ground_truth, detections: from `sorted_ground_truth` and `sorted_detections` of `annotations`.
        num_classes: K.
        max_dets: limits on the detections per image and class, ascending; beyond the last, none is matched.
        iou_thresholds: in (0, 1]; 0.50, 0.55, ..., 0.95 unless given.
        all_areas: also match among small, medium and large boxes only, as APs, APm and APl need.

    Returns:
        A `COCOeval` after `evaluate()`, before `accumulate()`.
    """
    places = _image_places(annotations)
    image_ids, category_ids = range(1, len(places) + 1), range(1, num_classes + 1)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _coco(image_ids, category_ids, ground_truth, places),
            _coco(image_ids, category_ids, detections, places),
            iouType="bbox",
        )
        params = evaluation.params
        params.maxDets = list(max_dets)
        if iou_thresholds is not None:
            params.iouThrs = np.asarray(iou_thresholds, dtype=np.float64)
        if not all_areas:
            params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
        evaluation.evaluate()
    return evaluation


def accumulate(evaluation: COCOeval) -> None:
    """`evaluation.accumulate()` without its output: precision and recall go into `evaluation.eval`."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()


def _coco(image_ids: range, category_ids: range, boxes: SortedBoxes, places: np.ndarray) -> COCO:
    columns = (
        (places[boxes.image_rows] + 1).tolist(),
        (boxes.labels + 1).tolist(),
        boxes.boxes_xywh.tolist(),
        boxes.areas.tolist(),
        boxes.crowd.astype(np.int64).tolist(),
        boxes.scores.tolist(),
    )
    coco = COCO()
    coco.dataset = {
        "images": [{"id": id_} for id_ in image_ids],
        "categories": [{"id": id_} for id_ in category_ids],
        "annotations": [
            {
                "id": id_,
                "image_id": image,
                "category_id": label,
                "bbox": xywh,
                "area": area,
                "iscrowd": crowd,
                "score": score,
            }
            for id_, (image, label, xywh, area, crowd, score) in enumerate(zip(*columns, strict=True), 1)
        ],
    }
    coco.createIndex()
    return coco


def _image_places(annotations: AnnotationTable) -> np.ndarray:
    """(n,) int64 place of each image in ascending order of ids, integers before text."""
    ids = list(annotations.image_ids)
    order = sorted(range(len(ids)), key=lambda row: (isinstance(ids[row], str), ids[row]))
    places = np.empty(len(ids), dtype=np.int64)
    places[order] = np.arange(len(ids))
    return places
