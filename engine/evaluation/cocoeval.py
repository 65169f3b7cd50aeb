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

from engine.data.annotations import AnnotationTable, CategoryId
from engine.errors import InputError, shown

_UNKNOWN, _NOT_EVALUATED = -1, -2


@dataclass(frozen=True)
class BoxRows:
    """Ground truth or detections, one row per box, in the order in which pycocotools visits them.

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


def run_cocoeval(
    annotations: AnnotationTable,
    results: Sequence[Mapping[str, Any]],
    category_ids: Sequence[CategoryId],
    max_dets: Sequence[int],
    iou_thresholds: Sequence[float] | None = None,
) -> tuple[COCOeval, BoxRows, BoxRows]:
    """Match detections with ground truth in each image and class.

    Row r of the ground truth or the detections has the id r + 1 in the `COCOeval`, and label k the category id k + 1:
    pycocotools takes an annotation whose id is 0 for "no match", and cannot sort int and str image ids together.

    Args:
        annotations: of the data set.
        results: COCO result entries.
        category_ids: label k -> category id; annotations and results of other categories are left out.
        max_dets: limits on the detections per image and class, ascending; beyond the last, none is matched.
        iou_thresholds: in (0, 1], for boxes of all sizes together; by default those of AP (0.50, 0.55, ..., 0.95), also
            for small, medium and large boxes on their own.

    Returns:
        A `COCOeval` after `evaluate()`, before `accumulate()`; its ground truth; its detections.

    Raises:
        InputError: a result names an image or category that the annotations do not have.
    """
    places = _image_places(annotations)
    ground_truth = _sorted_ground_truth(annotations, category_ids, places)
    detections = _sorted_detections(annotations, results, category_ids, places)
    image_ids, category_ids = range(1, len(places) + 1), range(1, len(category_ids) + 1)
    with contextlib.redirect_stdout(io.StringIO()):
        coco_objects = (_coco(image_ids, category_ids, boxes, places) for boxes in (ground_truth, detections))
        evaluation = COCOeval(*coco_objects, iouType="bbox")
        params = evaluation.params
        params.maxDets = list(max_dets)
        if iou_thresholds is not None:
            params.iouThrs = np.asarray(iou_thresholds, dtype=np.float64)
            params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
        evaluation.evaluate()
    return evaluation, ground_truth, detections


def _sorted_ground_truth(
    annotations: AnnotationTable, category_ids: Sequence[CategoryId], places: np.ndarray
) -> BoxRows:
    label_of = {category_id: label for label, category_id in enumerate(category_ids)}
    label_of_row = np.array([label_of.get(id_, _UNKNOWN) for id_ in annotations.category_ids], dtype=np.int64)
    labels = label_of_row[annotations.category_rows]  # (m,)
    rows, image_rows, scores = np.arange(len(labels)), annotations.image_rows, np.zeros(len(labels))
    boxes_xywh, areas, crowd = annotations.boxes_xywh, annotations.areas, annotations.crowd
    return _sorted(BoxRows(rows, image_rows, labels, boxes_xywh, areas, crowd, scores), places)


def _sorted_detections(
    annotations: AnnotationTable,
    results: Sequence[Mapping[str, Any]],
    category_ids: Sequence[CategoryId],
    places: np.ndarray,
) -> BoxRows:
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
            f"result {index}: {key} {shown(results[index][key])} is not in the annotations;"
            " evaluate on the data set that the results were made on"
        )
    # Arrays of all entries before they are sorted: visiting 500,000 dictionaries in another order takes a second.
    scores = np.array([entry["score"] for entry in results], dtype=np.float64)
    boxes_xywh = np.array([entry["bbox"] for entry in results], dtype=np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):  # 1e300 x 1e300
        areas, crowd = boxes_xywh[:, 2] * boxes_xywh[:, 3], np.zeros(len(results), dtype=bool)
    rows = np.arange(len(results))
    return _sorted(BoxRows(rows, image_rows, labels, boxes_xywh, areas, crowd, scores), places)


def _sorted(boxes: BoxRows, places: np.ndarray) -> BoxRows:
    """Those boxes whose label is not negative, sorted; `places` are those of `_image_places`."""
    rows = np.flatnonzero(boxes.labels >= 0)
    # lexsort is stable: boxes of an image and class with equal scores keep their order
    rows = rows[np.lexsort((-boxes.scores[rows], places[boxes.image_rows[rows]], boxes.labels[rows]))]
    return BoxRows(*(column[rows] for column in vars(boxes).values()))


def _coco(image_ids: range, category_ids: range, boxes: BoxRows, places: np.ndarray) -> COCO:
    columns = {
        "id": range(1, len(boxes.labels) + 1),
        "image_id": (places[boxes.image_rows] + 1).tolist(),
        "category_id": (boxes.labels + 1).tolist(),
        "bbox": boxes.boxes_xywh.tolist(),
        "area": boxes.areas.tolist(),
        "iscrowd": boxes.crowd.astype(np.int64).tolist(),
        "score": boxes.scores.tolist(),
    }
    coco = COCO()
    coco.dataset = {
        "images": [{"id": id_} for id_ in image_ids],
        "categories": [{"id": id_} for id_ in category_ids],
        "annotations": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
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
