"""COCO annotation files: reading, checking, and turning them into an `AnnotationTable`.

A file needs `images` (id, file_name) and `categories` (id, name); `annotations` (image_id, category_id, bbox) may be
missing, as in a test set. All other fields are optional. Each fault is one line that names the file, the id and the
remedy.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.annotations import FORMATS, AnnotationTable, ImageId, StringTable, flat_ids
from engine.errors import InputError, shown

Row = Mapping[str, Any]


@FORMATS.register("coco")
def read(ann_file: Path) -> AnnotationTable:
    """The annotations of a COCO file.

    Raises:
        InputError: the first of `file_faults`.
    """
    return to_table(load(ann_file), ann_file)


def file_faults(ann_file: Path) -> Iterator[str]:
    """Every fault of a COCO file, see `faults`; one only if the file cannot be read or is not JSON."""
    try:
        data = _parse(ann_file)
    except InputError as error:
        yield str(error)
        return
    yield from faults(data, ann_file)


def load(path: str | Path) -> dict[str, Any]:
    """The content of a COCO file; only its outline is checked, and missing `annotations` become an empty list.

    Raises:
        InputError: the file cannot be read, is not JSON (names the line), or `images`, `categories` or `annotations`
            are not lists of objects.
    """
    data = _parse(path)
    _raise_first(_outline_faults(data), path)
    data.setdefault("annotations", [])
    return data


def class_names(data: Row, path: str | Path) -> list[str]:
    """The names of the categories of `data` in ascending order of their ids; nothing else of it is checked.

    Raises:
        InputError: the first fault of the categories.
    """
    _raise_first(_category_faults(data["categories"]), path)
    return [row["name"] for row in _sorted_categories(data)]


def to_table(data: Row, path: str | Path) -> AnnotationTable:
    """A COCO dictionary as flat arrays.

    Raises:
        InputError: the first of `faults`.
    """
    for fault in faults(data, path):
        raise InputError(fault)
    images, annotations = data["images"], data.get("annotations", [])
    categories = _sorted_categories(data)
    image_ids = [image["id"] for image in images]
    row_of_image = {image_id: row for row, image_id in enumerate(image_ids)}
    row_of_category = {category["id"]: row for row, category in enumerate(categories)}
    boxes_xywh = np.array([row["bbox"] for row in annotations], dtype=np.float64).reshape(-1, 4)  # (m, 4)
    with np.errstate(over="ignore"):  # 1e300 x 1e300 is infinite, and no reason for a warning
        areas = boxes_xywh[:, 2] * boxes_xywh[:, 3]  # (m,)
    for row, annotation in enumerate(annotations):
        if is_finite_number(area := annotation.get("area")):
            areas[row] = area
    return AnnotationTable(
        image_ids=flat_ids(image_ids),
        file_names=StringTable(image["file_name"] for image in images),
        sizes=np.array([_stated_size(image) for image in images], dtype=np.int32).reshape(-1, 2),
        category_ids=[category["id"] for category in categories],
        category_names=[category["name"] for category in categories],
        image_rows=np.fromiter((row_of_image[row["image_id"]] for row in annotations), np.int64),
        category_rows=np.fromiter((row_of_category[row["category_id"]] for row in annotations), np.int64),
        boxes_xywh=boxes_xywh,
        areas=areas,
        crowd=np.fromiter((bool(row.get("iscrowd")) for row in annotations), bool),
    )


# ---------------------------------------------------------------- faults


def faults(data: Any, path: str | Path) -> Iterator[str]:
    """Every fault of a COCO dictionary, one line each that begins with `path`: categories, images, then annotations.

    If its outline is faulty, nothing below it can be checked, so only the faults of the outline come.
    """
    yield from (f"{path}: {fault}" for fault in list(_outline_faults(data)) or _content_faults(data))


def _outline_faults(data: Any) -> Iterator[str]:
    if not isinstance(data, dict):
        yield "not a COCO file: the top level must be an object with images, annotations, categories"
        return
    for key in ("images", "categories", "annotations"):
        if key not in data:
            if key != "annotations":
                yield f"not a COCO file: `{key}` is missing"
        elif not isinstance(data[key], list) or not all(isinstance(row, dict) for row in data[key]):
            yield f"`{key}` must be a list of objects"


def _content_faults(data: Row) -> Iterator[str]:
    category_ids = yield from _category_faults(data["categories"])
    image_ids = yield from _image_faults(data["images"])
    yield from _annotation_faults(data.get("annotations", []), image_ids, category_ids)


def _category_faults(categories: list[Row]) -> Generator[str, None, set[int]]:
    """Yields the faults and returns the ids, those of faulty categories included: one fault is not told twice."""
    if not categories:
        yield "`categories` is empty; list each class as {id, name}"
    ids: set[int] = set()
    names: set[str] = set()
    for row in categories:
        category_id, name = row.get("id"), row.get("name")
        if not _is_int(category_id):
            yield f"category {shown(row)}: `id` must be an integer"
        elif category_id in ids:
            yield f"category id {category_id} occurs twice; give each category its own id"
        else:
            ids.add(category_id)
        if not isinstance(name, str) or not name:
            yield f"category {shown(category_id)} has no `name`"
        elif not _is_text(name):
            yield f"category {shown(category_id)}: `name` {ascii(name)} is not valid Unicode; rename it"
        elif name in names:
            yield f"category name '{name}' occurs twice; merge the categories or rename one"
        else:
            names.add(name)
    return ids


def _image_faults(images: list[Row]) -> Generator[str, None, set[ImageId]]:
    """Yields the faults and returns the ids, those of faulty images included."""
    ids: set[ImageId] = set()
    for number, image in enumerate(images, start=1):
        image_id, file_name = image.get("id"), image.get("file_name")
        where = f"image {image_id}"
        if not isinstance(image_id, str) and not (_is_int(image_id) and -(2**63) <= image_id < 2**63):
            where = f"image number {number}"
            yield f"{where} has no usable `id`; it must be a 64-bit integer or text"
        elif not _is_text(image_id):
            yield f"image number {number}: `id` {ascii(image_id)} is not valid Unicode; give it another one"
        elif image_id in ids:
            yield f"image id {image_id} occurs twice; give each image its own id"
        else:
            ids.add(image_id)
        if not isinstance(file_name, str) or not file_name:
            yield f"{where} has no `file_name`"
        height, width = image.get("height"), image.get("width")
        # A missing size, null or 0 means that it is not known.
        if height and width and not (_is_side(height) and _is_side(width)):
            yield f"{where}: width and height must be positive integers, not {shown(width)} x {shown(height)}"
    if len({type(image_id) for image_id in ids}) > 1:
        yield "image ids must be all integers or all text, not a mixture"
    return ids


def _annotation_faults(
    annotations: list[Row], image_ids: Collection[ImageId], category_ids: Collection[int]
) -> Iterator[str]:
    """The faults of each annotation in the order: its id, its image, its category, its box."""
    seen: set[int | str] = set()
    for number, annotation in enumerate(annotations, start=1):
        annotation_id, image_id = annotation.get("id"), annotation.get("image_id")
        category_id, bbox = annotation.get("category_id"), annotation.get("bbox")
        found = []
        if annotation_id is None:
            pass
        elif not isinstance(annotation_id, int | str):
            found.append("`id` must be an integer")
        elif annotation_id in seen:
            found.append("this id occurs twice; give each annotation its own id, or give none of them one")
        else:
            seen.add(annotation_id)
        if not isinstance(image_id, int | str) or image_id not in image_ids:
            found.append(f"image_id {shown(image_id)} is not in `images`; add the image or remove the annotation")
        if not _is_int(category_id) or category_id not in category_ids:
            found.append(
                f"category_id {shown(category_id)} (image {shown(image_id)}) is not in `categories`; "
                "add the category or correct the id"
            )
        if not is_box(bbox):
            found.append(
                f"bbox (image {shown(image_id)}) must be four finite numbers [x, y, width, height], not {shown(bbox)}"
            )
        if found:
            name = f"number {number} (it has no id)" if annotation_id is None else shown(annotation_id)
            yield from (f"annotation {name}: {fault}" for fault in found)


def _raise_first(found: Iterator[str], path: str | Path) -> None:
    for fault in found:
        raise InputError(f"{path}: {fault}")


# ---------------------------------------------------------------- values


def is_finite_number(value: Any) -> bool:
    """Whether a JSON value is a number (not a bool) that a float can hold."""
    if type(value) is float:
        return math.isfinite(value)
    return type(value) is int and abs(value) <= sys.float_info.max  # a larger integer overflows when converted


def is_box(value: Any) -> bool:
    """Whether a JSON value is a list of four finite numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_finite_number, value))


def _is_int(value: Any) -> bool:
    return type(value) is int  # `isinstance` would let `true` pass


def _is_text(value: Any) -> bool:
    """Whether a value can be written in UTF-8: JSON may hold halves of characters, such as "\\ud83d"."""
    return not (isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value))


def _is_side(value: Any) -> bool:
    return is_finite_number(value) and value == int(value) and 0 < value < 2**31


def _stated_size(image: Row) -> tuple[int, int]:
    """(height, width) of an image without faults, (0, 0) where it is not known."""
    height, width = image.get("height"), image.get("width")
    return (int(height), int(width)) if height and width else (0, 0)


def _sorted_categories(data: Row) -> list[Row]:
    return sorted(data["categories"], key=lambda category: category["id"])


def _parse(path: str | Path) -> Any:
    """The JSON content of a file.

    Raises:
        InputError: it cannot be read, or is not JSON in UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
