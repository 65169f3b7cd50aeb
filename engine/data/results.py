"""Detections in the forms that other programs take. They may be of torch or of NumPy, which alone is imported here.

Boxes are corners in pixels, unless said otherwise. Floats are the shortest that name the same float32 (0.1, not
0.10000000149), except in COCO's form, which keeps what the evaluation computes with.

Shapes: D detections.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from engine.data.exact_boxes import to_relative, to_xywh, written
from engine.data.labelme_text import file_text, shape_text
from engine.errors import InputError, shown

if TYPE_CHECKING:
    from engine.data.annotations import CategoryId, ImageId

Entry = dict[str, Any]
"""`{"name", "category", "bbox": [x1, y1, x2, y2], "score"}`, as competitions want it."""
_CSV_HEADER = ("name", "category", "xmin", "ymin", "xmax", "ymax", "score")


class Found(Protocol):
    """What was found in one image: `structures.Detections` on the CPU, or `runtime.detections.Detections`.

    Attributes:
        boxes: (D, 4) float32, xyxy, in pixels of an image of `size`.
        scores: (D,) float32.
        labels: (D,) integers in 0..K-1.
        size: (height, width).
    """

    boxes: Any
    scores: Any
    labels: Any
    size: tuple[int, int]


class Arrays(NamedTuple):
    """The rows of detections as arrays: boxes (D, 4) float32, scores (D,) float32, labels (D,) int64."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def arrays_of(found: Found, image: ImageId = "") -> Arrays:
    """The rows of `found`.

    Raises:
        InputError: a box or score is not finite, as with weights that have diverged; it names `image`.
    """
    arrays = Arrays(
        np.asarray(found.boxes, np.float32).reshape(-1, 4),  # (D, 4), also of an empty list
        np.asarray(found.scores, np.float32),
        np.asarray(found.labels, np.int64),
    )
    if not (np.isfinite(arrays.boxes).all() and np.isfinite(arrays.scores).all()):
        raise InputError(
            f"image {shown(image)}: the box or score of a detection is not finite;"
            " the weights have probably diverged, train with a lower SOLVER.BASE_LR"
        )
    return arrays


def shortest(values: np.ndarray) -> list[Any]:
    """Floats as nested lists; 0.1 for the float32 that is nearest to it.

    Example:
        >>> shortest(np.float32([[0.1, 2.0]]))
        [[0.1, 2.0]]
    """
    texts = np.asarray(values, np.float32).astype(str)  # (...,) the shortest decimals of each
    return texts.astype(np.float64).tolist()


def to_dict(found: Found, class_names: Sequence[str], image: ImageId = "") -> dict[str, Any]:
    """`{"size": [height, width], "detections": [{"class", "score", "box"}, ...]}`, of what JSON can hold.

    Args:
        class_names: of labels 0..K-1.
        image: for the error of a box that is not finite.

    Example:
        >>> import types
        >>> found = types.SimpleNamespace(boxes=[[1, 2, 4.1, 6]], scores=[0.5], labels=[0], size=(10, 20))
        >>> to_dict(found, ["hole"])
        {'size': [10, 20], 'detections': [{'class': 'hole', 'score': 0.5, 'box': [1.0, 2.0, 4.1, 6.0]}]}
    """
    boxes, scores, labels = arrays_of(found, image)
    rows = zip(labels.tolist(), shortest(scores), shortest(boxes), strict=True)
    detections = [{"class": class_names[label], "score": score, "box": box} for label, score, box in rows]
    return {"size": [int(side) for side in found.size], "detections": detections}


def to_coco(found: Found, image_id: ImageId, category_ids: Sequence[CategoryId]) -> list[dict[str, Any]]:
    """Entries of a COCO result file, `{"image_id", "category_id", "bbox": [x, y, width, height], "score"}`.

    Args:
        category_ids: label k -> category id of the annotation file.
    """
    boxes, scores, labels = arrays_of(found, image_id)
    boxes_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)  # (D, 4)
    rows = zip(boxes_xywh.tolist(), scores.tolist(), labels.tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": bbox, "score": score}
        for bbox, score, label in rows
    ]


def to_entries(found: Found, name: str, class_names: Sequence[str], min_score: float = 0.0) -> list[Entry]:
    """`{"name", "category", "bbox": [x1, y1, x2, y2], "score"}` for each detection of at least `min_score`."""
    boxes, scores, labels = arrays_of(found, name)
    kept = scores >= min_score
    rows = zip(shortest(boxes[kept]), shortest(scores[kept]), labels[kept].tolist(), strict=True)
    return [{"name": name, "category": class_names[label], "bbox": box, "score": score} for box, score, label in rows]


def competition_text(entries: Sequence[Entry]) -> str:
    """The content of a `result.json`: a list of the entries as they are, one per line."""
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in entries)
    return f"[\n{lines}\n]\n" if entries else "[]\n"


def csv_text(entries: Sequence[Entry]) -> str:
    """A line per entry, `name,category,xmin,ymin,xmax,ymax,score`, after a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    writer.writerows([entry["name"], entry["category"], *entry["bbox"], entry["score"]] for entry in entries)
    return text.getvalue()


def labelme_text(found: Found, image_name: str, class_names: Sequence[str]) -> str:
    """The content of a LabelMe file, with rectangles that have a `score`, for the image beside it.

    It is an annotation file as well, so that people can correct what was found.
    """
    boxes, scores, labels = arrays_of(found, image_name)
    rows = zip(labels.tolist(), shortest(boxes), shortest(scores), strict=True)
    shapes = [shape_text(class_names[label], list(map(written, box)), score=score) for label, box, score in rows]
    return file_text(image_name, found.size, shapes)


def yolo_text(found: Found, with_scores: bool = True) -> str:
    """The content of a YOLO text file: `class x y width height score`, relative to the image; the class is the label.

    Without scores it is an annotation file, whose boxes are exactly these.

    Example:
        >>> import types
        >>> found = types.SimpleNamespace(boxes=[[30, 0, 50, 100]], scores=[0.5], labels=[2], size=(100, 80))
        >>> yolo_text(found)
        '2 0.500000 0.500000 0.250000 1.000000 0.5\\n'
    """
    boxes, scores, labels = arrays_of(found)
    lines = []
    for label, box, score in zip(labels.tolist(), shortest(boxes), shortest(scores), strict=True):
        relative = to_relative(to_xywh([Decimal(repr(side)) for side in box]), found.size)
        lines.append(" ".join([str(label), *relative, *([written(score)] if with_scores else [])]) + "\n")
    return "".join(lines)
