"""COCO annotation files: reading, checking and completing them.

A file needs `images` (id, file_name), `categories` (id, name) and `annotations` (image_id,
category_id, bbox); everything else may be missing. Every fault is one line that names the file and
the id.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import InputError

ImageId = int | str


@dataclass
class ImageTable:
    """The images in the file's order; sizes (n, 2) int32 are (height, width), 0 where missing."""

    ids: list[ImageId]
    file_names: list[str]
    sizes: np.ndarray


@dataclass
class AnnotationTable:
    """All annotations of a file, in its order.

    Attributes:
        image_rows: (m,) int64, index into the images.
        category_ids: (m,) int64.
        boxes_xywh: (m, 4) float64 as written.
        crowd: (m,) bool.
    """

    image_rows: np.ndarray
    category_ids: np.ndarray
    boxes_xywh: np.ndarray
    crowd: np.ndarray


def load_coco_json(path: str | Path) -> dict[str, Any]:
    """Parse a COCO file and check its outline.

    Raises:
        InputError: unreadable, not JSON (names the line), or `images` / `categories` /
            `annotations` are not lists of objects. `annotations` may be missing: a test set.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            data = json.load(file)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not isinstance(data, dict):
        raise InputError(
            f"{path}: not a COCO file: the top level must be an object with images, annotations, categories"
        )
    data.setdefault("annotations", [])
    for key in ("images", "categories", "annotations"):
        if key not in data:
            raise InputError(f"{path}: not a COCO file: `{key}` is missing")
        rows = data[key]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{path}: `{key}` must be a list of objects")
    return data


def parse_categories(data: Mapping[str, Any], path: str | Path) -> tuple[list[int], list[str]]:
    """Category ids in ascending order and their names; ids may have gaps and come in any order.

    Raises:
        InputError: no category, an id that is not an integer or occurs twice, a missing or repeated
            name.
    """
    names: dict[int, str] = {}
    for row in data["categories"]:
        category_id, name = row.get("id"), row.get("name")
        if not _is_int(category_id):
            raise InputError(f"{path}: category {_short(row)}: `id` must be an integer")
        if category_id in names:
            raise InputError(f"{path}: category id {category_id} occurs twice; give each its own id")
        if not isinstance(name, str) or not name:
            raise InputError(f"{path}: category {category_id} has no `name`")
        if name in names.values():
            raise InputError(f"{path}: category name '{name}' occurs twice; merge or rename them")
        names[category_id] = name
    if not names:
        raise InputError(f"{path}: `categories` is empty; list each class as {{id, name}}")
    ids = sorted(names)
    return ids, [names[category_id] for category_id in ids]


def parse_images(data: Mapping[str, Any], path: str | Path) -> ImageTable:
    """The images; ids are all integers or all strings.

    Raises:
        InputError: a missing or repeated id, a missing file name, a size that is not a positive
            number.
    """
    ids: list[ImageId] = []
    file_names: list[str] = []
    sizes = np.zeros((len(data["images"]), 2), dtype=np.int32)
    seen: set[ImageId] = set()
    for row, image in enumerate(data["images"]):
        image_id, file_name = image.get("id"), image.get("file_name")
        if not (_is_int(image_id) or isinstance(image_id, str)):
            raise InputError(f"{path}: image number {row + 1} has no usable `id` (integer or text)")
        if image_id in seen:
            raise InputError(f"{path}: image id {image_id} occurs twice; give each image its own id")
        if not isinstance(file_name, str) or not file_name:
            raise InputError(f"{path}: image {image_id} has no `file_name`")
        seen.add(image_id)
        ids.append(image_id)
        file_names.append(file_name)
        sizes[row] = _stated_size(image, path)
    if len({type(image_id) for image_id in ids}) > 1:
        raise InputError(f"{path}: image ids must be all integers or all text, not a mixture")
    return ImageTable(ids, file_names, sizes)


def parse_annotations(
    data: Mapping[str, Any],
    path: str | Path,
    image_ids: Iterable[ImageId],
    category_ids: Iterable[int],
) -> AnnotationTable:
    """Every annotation, checked; nothing is dropped here.

    Raises:
        InputError: a repeated annotation id, an image or category that does not exist, a bbox that
            is not four finite numbers.
    """
    row_of_image = {image_id: row for row, image_id in enumerate(image_ids)}
    known_categories = set(category_ids)
    annotations = data["annotations"]
    image_rows = np.zeros(len(annotations), dtype=np.int64)
    categories = np.zeros(len(annotations), dtype=np.int64)
    boxes_xywh = np.zeros((len(annotations), 4), dtype=np.float64)
    crowd = np.zeros(len(annotations), dtype=bool)
    seen: set[Any] = set()
    for row, annotation in enumerate(annotations):
        fault = _annotation_fault(annotation, seen, row_of_image, known_categories)
        if fault is not None:
            raise InputError(f"{path}: annotation {_name_of(annotation, row)}: {fault}")
        seen.add(annotation.get("id"))
        image_rows[row] = row_of_image[annotation["image_id"]]
        categories[row] = annotation["category_id"]
        boxes_xywh[row] = annotation["bbox"]
        crowd[row] = bool(annotation.get("iscrowd"))
    return AnnotationTable(image_rows, categories, boxes_xywh, crowd)


def complete_for_pycocotools(data: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with all that pycocotools reads: info, licenses; area, iscrowd, id of annotations.

    Annotations are numbered anew, from 1, unless all have positive integer ids: pycocotools takes
    id 0 for "unmatched" and cannot store text.
    """
    annotations = [dict(annotation) for annotation in data["annotations"]]
    renumber = not all(_is_int(row.get("id")) and row["id"] > 0 for row in annotations)
    for number, row in enumerate(annotations, start=1):
        if renumber:
            row["id"] = number
        row["iscrowd"] = int(bool(row.get("iscrowd")))
        if not is_finite_number(row.get("area")):
            row["area"] = float(row["bbox"][2]) * float(row["bbox"][3])
    return {
        **data,
        "info": data.get("info") or {},
        "licenses": data.get("licenses") or [],
        "annotations": annotations,
    }


def _stated_size(image: Mapping[str, Any], path: str | Path) -> tuple[int, int]:
    height, width = image.get("height"), image.get("width")
    if not height or not width:  # absent, null or 0: not known
        return 0, 0
    for side in (height, width):
        if not is_finite_number(side) or side != int(side) or not 0 < side < 2**31:
            raise InputError(
                f"{path}: image {image['id']}: width and height must be positive integers, "
                f"not {_short(width)} x {_short(height)}"
            )
    return int(height), int(width)


def _annotation_fault(
    annotation: Mapping[str, Any],
    seen: set[Any],
    known_images: Mapping[ImageId, int],
    known_categories: set[int],
) -> str | None:
    """What is wrong with an annotation, or None."""
    annotation_id = annotation.get("id")
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if annotation_id is not None:
        if not isinstance(annotation_id, (int, str)):
            return "`id` must be an integer"
        if annotation_id in seen:
            return "this id occurs twice; give each annotation its own id, or none"
    if not isinstance(image_id, (int, str)) or image_id not in known_images:
        return f"image_id {_short(image_id)} is not in `images`; add it or drop the annotation"
    where = f"(image {image_id})"
    if not _is_int(category_id) or category_id not in known_categories:
        return f"category_id {_short(category_id)} {where} is not in `categories`; add the category or correct the id"
    bbox = annotation.get("bbox")
    if not is_box(bbox):
        return f"bbox {where} must be four finite numbers [x, y, width, height], not {_short(bbox)}"
    return None


def _name_of(annotation: Mapping[str, Any], row: int) -> str:
    number = annotation.get("id")
    return _short(number) if number is not None else f"number {row + 1} (it has no id)"


def _is_int(value: Any) -> bool:
    return type(value) is int


def is_finite_number(value: Any) -> bool:
    """Whether a JSON value is a number (not a bool) that a float can hold."""
    if type(value) is int:
        return abs(value) <= sys.float_info.max  # a larger one is no float
    return type(value) is float and math.isfinite(value)


def is_box(value: Any) -> bool:
    """Whether a JSON value is a list of four finite numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_finite_number, value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
