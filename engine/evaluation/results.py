"""COCO result files: `[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, ...]`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.annotations import AnnotationTable, ImageId
from engine.data.formats.coco import is_box, is_finite_number
from engine.errors import InputError, shown
from engine.structures import Detections
from engine.structures import boxes as box_ops

KEYS = ("image_id", "category_id", "bbox", "score")


def to_coco_results(detections: Mapping[ImageId, Detections], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Result entries of many images, in the order given.

    Args:
        detections: image id -> detections in the coordinates of the image file.
        category_ids: label k -> category id of the annotation file.

    Raises:
        InputError: a box or score is not finite, as with weights that have diverged.

    Example:
        >>> import torch
        >>> boxes = torch.tensor([[1.0, 2.0, 4.0, 6.0]])
        >>> found = Detections(boxes, scores=torch.tensor([0.5]), labels=torch.tensor([0]), size=(10, 10))
        >>> to_coco_results({7: found}, [3])
        [{'image_id': 7, 'category_id': 3, 'bbox': [1.0, 2.0, 3.0, 4.0], 'score': 0.5}]
    """
    results = []
    for image_id, found in detections.items():
        if not (found.boxes.isfinite().all() and found.scores.isfinite().all()):
            raise InputError(
                f"image {image_id}: the box or score of a detection is not finite;"
                " the weights have probably diverged, train with a lower SOLVER.BASE_LR"
            )
        boxes_xywh = box_ops.to_xywh(found.boxes).tolist()  # (D, 4)
        rows = zip(boxes_xywh, found.scores.tolist(), found.labels.tolist(), strict=True)
        results.extend(
            {"image_id": image_id, "category_id": int(category_ids[label]), "bbox": bbox, "score": score}
            for bbox, score, label in rows
        )
    return results


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


def read_skipped_images(metrics_file: Path) -> list[ImageId]:
    """Ids of the images that a test could not read, from the `metrics.json` beside its results; [] without a file."""
    try:
        metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return metrics.get("skipped_images", []) if isinstance(metrics, dict) else []


def read_results(path: str | Path, annotations: AnnotationTable) -> list[dict[str, Any]]:
    """Read and check a COCO result file of a data set with these `annotations`.

    Raises:
        InputError: the file cannot be read, or an entry is faulty or has an id that is not in `annotations`; one line
            with the file and the index of the entry, from 0.
    """
    path = Path(path)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the results file: {error.strerror}") from None
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not a JSON file ({first}); write the results again") from None
    if not isinstance(results, list):
        raise InputError(
            f"{path}: must hold a list of COCO results, not {type(results).__name__}; is this the annotation file?"
        )
    image_ids, category_ids = set(annotations.image_ids), set(annotations.category_ids)
    for index, entry in enumerate(results):
        fault = _fault(entry, image_ids, category_ids)
        if fault is not None:
            raise InputError(f"{path}: entry {index}: {fault}")
    return results


def _fault(entry: Any, image_ids: set[ImageId], category_ids: set[int]) -> str | None:
    """What is wrong with one result entry, or None."""
    if not isinstance(entry, dict):
        return f"must be an object with {', '.join(KEYS)}, not {type(entry).__name__}"
    missing = [key for key in KEYS if key not in entry]
    if missing:
        return f"lacks {', '.join(missing)}"
    bbox, score = entry["bbox"], entry["score"]
    if not is_box(bbox):
        return f"bbox must be 4 finite numbers [x, y, width, height], not {shown(bbox)}"
    if bbox[2] < 0 or bbox[3] < 0:
        return f"bbox {shown(bbox)} has a negative width or height; it must be [x, y, width, height]"
    if not is_finite_number(score):
        return f"score must be a finite number, not {shown(score)}"
    if not _is_known(entry["image_id"], image_ids):
        return f"image_id {shown(entry['image_id'])} is not in the annotations of this data set"
    if not _is_known(entry["category_id"], category_ids):
        known = sorted(category_ids)
        some = ", ".join(map(str, known[:8])) + (", ..." if len(known) > 8 else "")
        return f"category_id {shown(entry['category_id'])} is not in the annotations, which have {some}"
    return None


def _is_known(value: Any, known: set[Any]) -> bool:
    # Types first: a list cannot be looked up in a set, and True equals the id 1.
    return type(value) in (int, str) and value in known
