"""COCO result files: `[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, ...]`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.annotations import AnnotationTable, CategoryId, ImageId
from engine.data.formats.values import IdRows, is_box, number, numbers
from engine.data.results import Found, to_coco
from engine.errors import InputError, listed, shown
from engine.files import read_json

KEYS = ("image_id", "category_id", "bbox", "score")


def to_coco_results(detections: Mapping[ImageId, Found], category_ids: Sequence[CategoryId]) -> list[dict[str, Any]]:
    """Result entries of many images, in the order given.

    Args:
        detections: image id -> detections in the coordinates of the image file.
        category_ids: label k -> category id of the annotation file.

    Raises:
        InputError: a box or score is not finite, as with weights that have diverged.

    Example:
        >>> import torch
        >>> from engine.structures import Detections
        >>> boxes = torch.tensor([[1.0, 2.0, 4.0, 6.0]])
        >>> found = Detections(boxes, scores=torch.tensor([0.5]), labels=torch.tensor([0]), size=(10, 10))
        >>> to_coco_results({7: found}, [3])
        [{'image_id': 7, 'category_id': 3, 'bbox': [1.0, 2.0, 3.0, 4.0], 'score': 0.5}]
    """
    return [entry for image_id, found in detections.items() for entry in to_coco(found, image_id, category_ids)]


def without_images(annotations: AnnotationTable, image_ids: Collection[ImageId]) -> AnnotationTable:
    """The annotations without these images and their boxes; ids that they do not have are ignored."""
    dropped = set(image_ids)
    is_kept = np.array([image_id not in dropped for image_id in annotations.image_ids], dtype=bool)  # (n,)
    image_rows = np.flatnonzero(is_kept)
    rows = np.flatnonzero(is_kept[annotations.image_rows])
    return replace(
        annotations,
        image_ids=[annotations.image_ids[row] for row in image_rows.tolist()],
        file_names=[annotations.file_names[row] for row in image_rows.tolist()],
        sizes=annotations.sizes[image_rows],
        image_rows=(np.cumsum(is_kept) - 1)[annotations.image_rows[rows]],
        category_rows=annotations.category_rows[rows],
        boxes_xywh=annotations.boxes_xywh[rows],
        areas=annotations.areas[rows],
        crowd=annotations.crowd[rows],
    )


def read_skipped_images(
    metrics_file: Path, annotations: AnnotationTable, results: Sequence[Mapping[str, Any]]
) -> list[ImageId]:
    """Ids of the images that a test could not read, from the `metrics.json` beside its results; [] without a file.

    Images that are not in `annotations`, or that have detections, were not left out of this test.
    """
    try:
        metrics = read_json(metrics_file)
    except InputError:
        return []
    skipped = metrics.get("skipped_images") if isinstance(metrics, dict) else None
    possible = set(annotations.image_ids).difference(entry["image_id"] for entry in results)
    ids = [each for each in skipped if type(each) in (int, str)] if isinstance(skipped, list) else []
    return [each for each in dict.fromkeys(ids) if each in possible]


def read_results(
    path: str | Path, annotations: AnnotationTable, merged_ids: Mapping[CategoryId, CategoryId] | None = None
) -> list[dict[str, Any]]:
    """Read and check a COCO result file of a data set with these `annotations`.

    Ids and numbers that are written as text are read, and come as `annotations` have them. `merged_ids` of categories
    stand for others: the results may be of a model that was trained before its classes were merged.

    Raises:
        InputError: the file cannot be read, or an entry is faulty or has an id that is not in `annotations`; one line
            with the file and the index of the entry, from 0.
    """
    results = read_json(path)
    if not isinstance(results, list):
        raise InputError(
            f"{path}: must hold a list of COCO results, not {type(results).__name__}; is this the annotation file?"
        )
    image_ids, category_ids = list(annotations.image_ids), annotations.category_ids
    category_row = {id_: row for row, id_ in enumerate(category_ids)}
    category_row |= {id_: category_row[merged] for id_, merged in (merged_ids or {}).items()}
    image_rows, category_rows = IdRows({id_: row for row, id_ in enumerate(image_ids)}), IdRows(category_row)
    for index, entry in enumerate(results):
        if fault := _outline_fault(entry):
            raise InputError(f"{path}: entry {index}: {fault}")
        bbox, score = entry["bbox"], number(entry["score"])
        box = bbox if is_box(bbox) else numbers(bbox, 4)
        image_row, category_row = image_rows.find(entry["image_id"]), category_rows.find(entry["category_id"])
        if None in (box, score, image_row, category_row) or box[2] < 0 or box[3] < 0:
            fault = _fault(entry, box, image_row is not None, category_ids)
            raise InputError(f"{path}: entry {index}: {fault}")
        entry["image_id"], entry["category_id"] = image_ids[image_row], category_ids[category_row]
        entry["bbox"], entry["score"] = box, score
    return results


def _outline_fault(entry: Any) -> str | None:
    """What is wrong with the outline of one result entry, or None."""
    if not isinstance(entry, dict):
        return f"must be an object with {', '.join(KEYS)}, not {type(entry).__name__}"
    missing = [key for key in KEYS if key not in entry]
    return f"lacks {', '.join(missing)}" if missing else None


def _fault(
    entry: Mapping[str, Any], box: list[float] | None, is_known_image: bool, category_ids: Sequence[CategoryId]
) -> str:
    """What is wrong with the values of a faulty result entry."""
    if box is None:
        return f"bbox must be 4 finite numbers [x, y, width, height], not {shown(entry['bbox'])}"
    if box[2] < 0 or box[3] < 0:
        return f"bbox {shown(box)} has a negative width or height; it must be [x, y, width, height]"
    if number(entry["score"]) is None:
        return f"score must be a finite number, not {shown(entry['score'])}"
    if not is_known_image:
        return f"image_id {shown(entry['image_id'])} is not in the annotations of this data set"
    some = listed(category_ids[:8]) + (", ..." if len(category_ids) > 8 else "")
    return f"category_id {shown(entry['category_id'])} is not in the annotations, which have {some}"
