"""COCO annotation files: reading, checking, and turning them into an `AnnotationTable`.

A file needs `images` (id, file_name) and `categories` (id, name); `annotations` (image_id, category_id, bbox) may be
missing, as in a test set. All other fields are optional. Each fault is one line that names the file, the id and the
remedy. What labelling tools write otherwise than COCO is read too, see `coco_rows`, and said in a warning.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engine.data.annotations import FORMATS, WRITERS, AnnotationTable, StringTable, flat_ids, merge_split_images
from engine.data.formats.coco_rows import (
    Boxes,
    Categories,
    Images,
    Row,
    read_annotations,
    read_categories,
    read_images,
)
from engine.errors import InputError, shown
from engine.files import read_json, write_text
from engine.log import warn_once
from engine.spelling import is_slip

T = TypeVar("T")

_REQUIRED = {
    "images": ("id", "file_name"),
    "categories": ("id", "name"),
    "annotations": ("image_id", "category_id", "bbox"),
}
_OPTIONAL = {
    "images": ("height", "width"),
    "categories": (),
    "annotations": ("id", "area", "iscrowd", "ignore", "segmentation"),
}


@FORMATS.register("coco")
def read(ann_file: Path, img_dir: Path | None = None) -> AnnotationTable:
    """The annotations of a COCO file, which tells all itself; `img_dir` is not looked at.

    Raises:
        InputError: the first of `file_faults`.
    """
    return to_table(load(ann_file), ann_file)


@WRITERS.register("coco")
def write(table: AnnotationTable, folder: Path) -> tuple[str, str]:
    """`annotations.json`; annotations are numbered from 1."""
    save(to_coco(table), folder / "annotations.json")
    return "annotations.json", "images"


def save(data: Row, path: Path) -> None:
    """Write a COCO dictionary as JSON without line breaks, as it is usually large.

    Raises:
        InputError: the file cannot be written.
    """
    write_text(path, json.dumps(data, ensure_ascii=False) + "\n")


def to_coco(table: AnnotationTable) -> dict[str, Any]:
    """The inverse of `to_table`: a COCO dictionary with annotations numbered from 1."""
    images = [
        {"id": image_id, "file_name": name, **({"width": width, "height": height} if height and width else {})}
        for image_id, name, (height, width) in zip(table.image_ids, table.file_names, table.sizes.tolist(), strict=True)
    ]
    names = zip(table.category_ids, table.category_names, strict=True)
    columns = table.image_rows, table.category_rows, table.boxes_xywh, table.areas, table.crowd
    annotations = [
        {
            "id": number,
            "image_id": table.image_ids[image],
            "category_id": table.category_ids[category],
            "bbox": list(map(_number, box)),
            **({"area": _number(area)} if np.isfinite(area) else {}),
            "iscrowd": int(crowd),
        }
        for number, (image, category, box, area, crowd) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]
    categories = [{"id": category_id, "name": name} for category_id, name in names]
    return {"images": images, "categories": categories, "annotations": annotations}


def _number(value: float) -> int | float:
    """5.0 as 5, which most files have."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def file_faults(ann_file: Path) -> Iterator[str]:
    """Every fault of a COCO file, see `faults`; one only if the file cannot be read or is not JSON."""
    try:
        data = read_json(ann_file)
    except InputError as error:
        yield str(error)
        return
    yield from faults(data, ann_file)


def load(path: str | Path) -> dict[str, Any]:
    """The content of a COCO file; only its outline is checked, and missing `annotations` become an empty list.

    Raises:
        InputError: the file cannot be read, is not JSON (names the line), or `images`, `categories` or `annotations`
            are not lists of objects, or are misspelt.
    """
    data = read_json(path)
    _value(_outline_faults(data), path)
    data.setdefault("annotations", [])
    return data


def class_names(data: Row, path: str | Path) -> list[str]:
    """The names of the classes of `data` in the order of the labels; images and boxes are not checked.

    Raises:
        InputError: the first fault of the categories.
    """
    return _value(read_categories(data["categories"], data.get("annotations", [])), path).names


def to_table(data: Row, path: str | Path) -> AnnotationTable:
    """A COCO dictionary as flat arrays. What is not read as it stands is said in warnings.

    Raises:
        InputError: the first of `faults`.
    """
    categories, images, boxes, notes = _value(_content(data), path)
    boxes_xywh = np.asarray(boxes.boxes_xywh).reshape(-1, 4)  # (m, 4)
    stated = np.asarray(boxes.areas)
    with np.errstate(over="ignore"):  # 1e300 x 1e300 is infinite, and no reason for a warning
        areas = np.where(np.isnan(stated), boxes_xywh[:, 2] * boxes_xywh[:, 3], stated)  # (m,)
    table = AnnotationTable(
        image_ids=flat_ids(images.ids),
        file_names=StringTable(images.file_names),
        sizes=np.array(images.sizes, dtype=np.int32).reshape(-1, 2),
        category_ids=categories.ids,
        category_names=categories.names,
        image_rows=np.asarray(boxes.image_rows),
        category_rows=np.asarray(boxes.category_rows),
        boxes_xywh=boxes_xywh,
        areas=areas,
        crowd=np.asarray(boxes.crowd).astype(bool),
    )
    if len(set(images.file_names)) < len(images.file_names):
        table, merged = merge_split_images(table)
        if merged:
            notes.append(
                "files under several image ids with a part of their boxes each are read as one image with all of them,"
                f" under the first id: {len(merged)}, such as {shown(merged[0])}"
            )
    for note in notes:
        warn_once(f"{path}: {note}")
    return table


# ---------------------------------------------------------------- faults


def faults(data: Any, path: str | Path) -> Iterator[str]:
    """Every fault of a COCO dictionary, one line each that begins with `path`: categories, images, then annotations.

    If its outline is faulty, nothing below it can be checked, so only the faults of the outline come.
    """
    yield from (f"{path}: {fault}" for fault in _content(data))


def _content(data: Any) -> Generator[str, None, tuple[Categories, Images, Boxes, list[str]] | None]:
    """Yields the faults; returns what the file holds and notes on it, which are of use only without faults."""
    found, notes = [*_outline_faults(data)], []
    if not found:
        found, notes = _misspelt_keys(data)
    if found:
        yield from found
        return None
    annotations = data.get("annotations", [])
    categories = yield from read_categories(data["categories"], annotations)
    images = yield from read_images(data["images"])
    boxes = yield from read_annotations(annotations, images.rows, categories.rows)
    return categories, images, boxes, [*notes, *categories.notes, *images.notes, *boxes.notes]


def _value(found: Generator[str, None, T], path: str | Path) -> T:
    """What a reader returns; its first fault is raised."""
    try:
        fault = next(found)
    except StopIteration as end:
        return end.value
    raise InputError(f"{path}: {fault}")


def _outline_faults(data: Any) -> Generator[str, None, None]:
    if not isinstance(data, dict):
        yield "not a COCO file: the top level must be an object with images, annotations, categories"
        return
    for key in _REQUIRED:
        if key in data:
            if not isinstance(data[key], list) or not all(isinstance(row, dict) for row in data[key]):
                yield f"`{key}` must be a list of objects"
            continue
        slips = [each for each in data if each not in _REQUIRED and is_slip(each, key)]
        if slips:
            yield f"`{key}` is missing; did you mean {shown(slips[0])}? Rename it"
        elif key != "annotations":
            yield f"not a COCO file: `{key}` is missing"


def _misspelt_keys(data: Row) -> tuple[list[str], list[str]]:
    """Faults for the misspelt keys without which a row cannot be read, and notes for the others."""
    faults_, notes = [], []
    for section, required in _REQUIRED.items():
        rows = data.get(section, [])
        known = (*required, *_OPTIONAL[section])
        for slip in sorted(set().union(*rows).difference(known)):
            for key in known:
                if not is_slip(slip, key) or not (number := sum(slip in row and key not in row for row in rows)):
                    continue
                share = f"in {number} of {len(rows)} entries"
                if key in required:
                    faults_.append(f"`{section}` has {shown(slip)} but no `{key}` {share}; rename it to `{key}`")
                else:
                    notes.append(f"`{section}` has {shown(slip)} {share}, which is not read; did you mean `{key}`?")
    return faults_, notes
