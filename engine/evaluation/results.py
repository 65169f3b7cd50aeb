"""COCO result files: `[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}, ...]`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.data.formats.coco import is_box, is_finite_number
from engine.errors import InputError
from engine.structures import Detections
from engine.structures import boxes as box_ops

KEYS = ("image_id", "category_id", "bbox", "score")


def to_coco_results(detections: Mapping[int | str, Detections], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Result entries of many images, in the order given.

    Args:
        detections: image id -> detections in the coordinates of the image file.
        category_ids: label k -> category id of the annotation file.

    Raises:
        InputError: a box or score is not finite; weights that diverged do that.

    Example:
        >>> import torch
        >>> found = Detections(
        ...     boxes=torch.tensor([[1.0, 2.0, 4.0, 6.0]]),
        ...     scores=torch.tensor([0.5]),
        ...     labels=torch.tensor([0]),
        ...     size=(10, 10),
        ... )
        >>> to_coco_results({7: found}, [3])
        [{'image_id': 7, 'category_id': 3, 'bbox': [1.0, 2.0, 3.0, 4.0], 'score': 0.5}]
    """
    results = []
    for image_id, found in detections.items():
        if not (found.boxes.isfinite().all() and found.scores.isfinite().all()):
            raise InputError(
                f"image {image_id}: a detection has a box or score that is not finite;"
                " the weights have probably diverged, train with a lower SOLVER.BASE_LR"
            )
        boxes_xywh = box_ops.to_xywh(found.boxes).tolist()  # (D, 4)
        rows = zip(boxes_xywh, found.scores.tolist(), found.labels.tolist(), strict=True)
        results.extend(
            {
                "image_id": image_id,
                "category_id": int(category_ids[label]),
                "bbox": bbox,
                "score": score,
            }
            for bbox, score, label in rows
        )
    return results


def without_images(coco_dict: Mapping[str, Any], image_ids: Collection[int | str]) -> dict[str, Any]:
    """The annotations without these images and their boxes; the argument is not changed.

    Example:
        >>> rows = {"images": [{"id": 1}, {"id": 2}], "annotations": [{"image_id": 1}, {"image_id": 2}]}
        >>> without_images(rows, [2])
        {'images': [{'id': 1}], 'annotations': [{'image_id': 1}]}
    """
    dropped = set(image_ids)
    return {
        **coco_dict,
        "images": [image for image in coco_dict["images"] if image["id"] not in dropped],
        "annotations": [row for row in coco_dict["annotations"] if row["image_id"] not in dropped],
    }


def read_skipped_images(metrics_file: Path) -> list[int | str]:
    """The ids that a `metrics.json` beside a results file says were not detected in; [] if there is no such file."""
    try:
        metrics = json.loads(metrics_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return metrics.get("skipped_images", []) if isinstance(metrics, dict) else []


def read_results(path: str | Path, coco_dict: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Read and check a COCO result file.

    Args:
        path: the JSON file.
        coco_dict: the annotations it belongs to; where given, ids must be in them.

    Raises:
        InputError: one line with the file and the index (from 0) of the entry at fault.
    """
    path = Path(path)
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the results file: {error.strerror}") from None
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path}: not a JSON file ({first}); write it again") from None
    if not isinstance(results, list):
        raise InputError(
            f"{path}: must hold a list of COCO results, holds {type(results).__name__}; is this the annotation file?"
        )
    image_ids = category_ids = None
    if coco_dict is not None:
        image_ids = {image["id"] for image in coco_dict["images"]}
        category_ids = {category["id"] for category in coco_dict["categories"]}
    for index, entry in enumerate(results):
        fault = _fault(entry, image_ids, category_ids)
        if fault is not None:
            raise InputError(f"{path}: entry {index}: {fault}")
    return results


def _fault(entry: Any, image_ids: set[int | str] | None, category_ids: set[int] | None) -> str | None:
    """What is wrong with one result entry, or None."""
    if not isinstance(entry, dict):
        return f"must be an object with {', '.join(KEYS)}, is {type(entry).__name__}"
    missing = [key for key in KEYS if key not in entry]
    if missing:
        return f"lacks {', '.join(missing)}"
    bbox, score = entry["bbox"], entry["score"]
    if not is_box(bbox):
        return f"bbox must be 4 finite numbers [x, y, width, height], is {_shown(bbox)}"
    if bbox[2] < 0 or bbox[3] < 0:
        return f"bbox {_shown(bbox)} has a negative width or height; it must be [x, y, width, height]"
    if not is_finite_number(score):
        return f"score must be a finite number, is {_shown(score)}"
    if image_ids is not None and not _is_known(entry["image_id"], image_ids):
        return f"image_id {_shown(entry['image_id'])} is not in the annotations of this data set"
    if category_ids is not None and not _is_known(entry["category_id"], category_ids):
        known = sorted(category_ids)
        some = ", ".join(map(str, known[:8])) + (", ..." if len(known) > 8 else "")
        shown = _shown(entry["category_id"])
        return f"category_id {shown} is not in the annotations, which have {some}"
    return None


def _is_known(value: Any, known: set[Any]) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value in known


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
