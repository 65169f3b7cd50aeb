"""The rows of a COCO file, `categories`, `images` and `annotations`, checked and turned into columns.

Each reader yields the faults, one line each without the file, and returns its columns; these are whole if nothing was
yielded. `notes` are what the user should know of rows that are not read as they stand.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.data.formats.segmentation import extent
from engine.data.formats.values import (
    Id,
    IdRows,
    flag,
    identifier,
    is_box,
    number,
    numbers,
    of_one_type,
    whole_number,
)
from engine.errors import listed, shown
from engine.spelling import is_text, normal_name

Row = Mapping[str, Any]

_ID = "must be an integer or text"


@dataclass
class Categories:
    """Categories in ascending order of their ids, and which one of them an id in the file means."""

    ids: list[Id]
    names: list[str]
    rows: IdRows
    notes: list[str]


@dataclass
class Images:
    """Images in the order of the file; sizes are (height, width), 0 where they are not stated."""

    ids: list[Id]
    file_names: list[str]
    sizes: list[tuple[int, int]]
    rows: IdRows
    notes: list[str]


@dataclass
class Boxes:
    """Annotations in the order of the file, see `AnnotationTable`; an area is NaN where it is not stated."""

    image_rows: array = field(default_factory=lambda: array("q"))
    category_rows: array = field(default_factory=lambda: array("q"))
    boxes_xywh: array = field(default_factory=lambda: array("d"))
    areas: array = field(default_factory=lambda: array("d"))
    crowd: array = field(default_factory=lambda: array("b"))
    notes: list[str] = field(default_factory=list)


# ---------------------------------------------------------------- categories


def read_categories(categories: Sequence[Row], annotations: Sequence[Row]) -> Generator[str, None, Categories]:
    """Categories whose names are equal are one, under the lowest of their ids; a placeholder without boxes is dropped.

    Args:
        annotations: looked at only to see whether a placeholder has boxes.
    """
    if not categories:
        yield "`categories` is empty; list each class as {id, name}"
    placeholder = _placeholder(categories, annotations)
    ids: list[Id] = []
    names: list[str] = []
    respelt: list[str] = []
    for number_, row in enumerate(categories, start=1):
        if row is placeholder:
            continue
        category_id, name = identifier(row.get("id")), _class_name(row.get("name"))
        where = f"category number {number_}" if category_id is None else f"category {shown(category_id)}"
        if category_id is None:
            yield f"{where}: `id` {_ID}, not {shown(row.get('id'))}"
        if name is None:
            yield f"{where} has no usable `name`, but {shown(row.get('name'))}; give it one"
        elif not is_text(name):
            yield f"{where}: `name` {shown(name)} is not valid Unicode; rename it"
        elif isinstance(row["name"], str) and name != row["name"]:
            respelt.append(row["name"])
        if category_id is not None:  # also of a faulty category: its boxes are not at fault
            ids.append(category_id)
            names.append(name or "")
    name_of: dict[Id, str] = {}
    for category_id, name in zip(of_one_type(ids), names, strict=True):
        if name_of.setdefault(category_id, name) != name:
            yield f"category id {shown(category_id)} occurs twice; give each category its own id"
    result = _merged(name_of)
    if respelt:
        some = ", ".join(f"{shown(name)} as {shown(normal_name(name))}" for name in respelt[:3])
        more = f" and {len(respelt) - 3} more" if len(respelt) > 3 else ""
        result.notes.append(
            f"names of categories are read without blanks at their ends and with composed accents (NFC): {some}{more}"
        )
    if placeholder is not None:
        result.notes.append(
            f"category {shown(placeholder['id'])} {shown(placeholder['name'])} is left out: it is the supercategory of"
            " others and has no boxes, as Roboflow writes it"
        )
    return result


def _class_name(value: Any) -> str | None:
    """The name in its normal form, 7 as "7"; None for what cannot be a name."""
    if isinstance(value, str):
        return normal_name(value) or None
    if number(value) is None:
        return None
    whole = whole_number(value)
    return str(value if whole is None else whole)


def _merged(names: Mapping[Id, str]) -> Categories:
    """Categories in ascending order of their ids, "10" behind "9" if all of them are numbers."""
    values = {each: whole_number(each) for each in names}
    are_numbers = None not in values.values()
    ids_of: dict[str, list[Id]] = {}
    for category_id in sorted(names, key=lambda each: (values[each], each) if are_numbers else (0, each)):
        ids_of.setdefault(names[category_id], []).append(category_id)
    merged = [f"{shown(name)} (ids {listed(ids)})" for name, ids in ids_of.items() if len(ids) > 1]
    notes = [f"categories of the same name are read as one class: {', '.join(merged)}"] if merged else []
    rows = {category_id: row for row, ids in enumerate(ids_of.values()) for category_id in ids}
    return Categories([ids[0] for ids in ids_of.values()], list(ids_of), IdRows(rows), notes)


def _placeholder(categories: Sequence[Row], annotations: Sequence[Row]) -> Row | None:
    """Category 0 if it has no boxes and others name it as their supercategory."""
    for row in categories:
        name = _class_name(row.get("name"))
        if whole_number(row.get("id")) != 0 or name is None:
            continue
        others = [_class_name(each.get("supercategory")) for each in categories if each is not row]
        if name in others and not any(whole_number(each.get("category_id")) == 0 for each in annotations):
            return row
    return None


# ---------------------------------------------------------------- images


def read_images(images: Sequence[Row]) -> Generator[str, None, Images]:
    """An image that is listed several times with the same id and file is read once."""
    ids: list[Id] = []
    kept: list[tuple[str, tuple[int, int]]] = []
    for number_, row in enumerate(images, start=1):
        image_id, file_name = identifier(row.get("id")), row.get("file_name")
        where = f"image number {number_}" if image_id is None else f"image {shown(image_id)}"
        if image_id is None:
            yield f"{where} has no usable `id`, but {shown(row.get('id'))}; it {_ID}"
        if fault := _file_name_fault(file_name):
            yield f"{where}{fault}"
        height, width = _side(row.get("height")), _side(row.get("width"))
        if height is None or width is None:
            stated = f"{shown(row.get('width'))} x {shown(row.get('height'))}"
            yield f"{where}: width and height must be positive integers, not {stated}"
        if image_id is not None:  # also of a faulty image: its boxes are not at fault
            ids.append(image_id)
            kept.append((file_name, (height, width) if height and width else (0, 0)))
    result = Images([], [], [], IdRows({}), [])
    rows: dict[Id, int] = {}
    repeated: list[str] = []
    for image_id, (file_name, size) in zip(of_one_type(ids), kept, strict=True):
        row = rows.setdefault(image_id, len(rows))
        if row == len(result.ids):
            result.ids.append(image_id)
            result.file_names.append(file_name)
            result.sizes.append(size)
        elif result.file_names[row] == file_name:
            repeated.append(file_name)
        else:
            yield f"image id {shown(image_id)} occurs twice; give each image its own id"
    result.rows = IdRows(rows)
    if repeated:
        result.notes.append(
            "entries of `images` with the id and file of another one are read as one image with it:"
            f" {len(repeated)}, such as {shown(repeated[0])}"
        )
    return result


def _file_name_fault(file_name: Any) -> str | None:
    if file_name is None or file_name == "":
        return " has no `file_name`"
    if not isinstance(file_name, str):
        return f": `file_name` must be text, not {shown(file_name)}"
    try:
        encoded = os.fsencode(file_name)
    except UnicodeEncodeError:
        return f": `file_name` {shown(file_name)} is not valid Unicode; rename the file"
    return f": `file_name` {shown(file_name)} has a NUL character, which no file can have" if b"\0" in encoded else None


def _side(value: Any) -> int | None:
    """Pixels of a side; 0 for a missing side, null, 0 or "", which mean that it is not known; None for a fault."""
    if value is None or value == "":
        return 0
    side = whole_number(value)
    return side if side is not None and 0 <= side < 2**31 else None


# ---------------------------------------------------------------- annotations


def read_annotations(annotations: Sequence[Row], images: IdRows, categories: IdRows) -> Generator[str, None, Boxes]:
    """`iscrowd` and `ignore` both make an ignore region; a missing `bbox` is taken from the segmentation."""
    boxes = Boxes()
    seen: set[Id] = set()
    num_from_segmentation = 0
    for number_, row in enumerate(annotations, start=1):
        image_row, category_row = images.find(row.get("image_id")), categories.find(row.get("category_id"))
        bbox, area, annotation_id = row.get("bbox"), row.get("area"), row.get("id")
        box = bbox if is_box(bbox) else numbers(bbox, 4)
        if box is None and not bbox and (box := extent(row.get("segmentation"))):
            num_from_segmentation += 1
        area = math.nan if area is None else number(area)
        crowd, ignore = _flag(row.get("iscrowd")), _flag(row.get("ignore"))
        unique_id = annotation_id if annotation_id is None or type(annotation_id) is int else identifier(annotation_id)
        is_id_wrong = annotation_id is not None and (unique_id is None or unique_id in seen)
        if is_id_wrong or None in (image_row, category_row, box, area, crowd, ignore):
            where = f"number {number_} (it has no id)" if annotation_id is None else shown(annotation_id)
            found = _annotation_faults(row, seen, image_row, category_row, box)
            yield from (f"annotation {where}: {fault}" for fault in found)
        else:
            boxes.image_rows.append(image_row)
            boxes.category_rows.append(category_row)
            boxes.boxes_xywh.extend(box)
            boxes.areas.append(area)
            boxes.crowd.append(crowd or ignore)
        if unique_id is not None:
            seen.add(unique_id)
    if num_from_segmentation:
        boxes.notes.append(
            "annotations without `bbox` have the box around their segmentation:"
            f" {num_from_segmentation} of {len(annotations)}"
        )
    return boxes


def _flag(value: Any) -> bool | None:
    return False if value is None or value == 0 else flag(value)  # nearly all are


def _annotation_faults(
    row: Row, seen: Collection[Id], image_row: int | None, category_row: int | None, box: list[float] | None
) -> Iterator[str]:
    """In the order: its id, its image, its category, its box, its area, its flags."""
    annotation_id, image = row.get("id"), f"image {shown(row.get('image_id'))}"
    if annotation_id is not None and identifier(annotation_id) is None:
        yield f"`id` {_ID}"
    elif annotation_id is not None and identifier(annotation_id) in seen:
        yield "this id occurs twice; give each annotation its own id, or give none of them one"
    if image_row is None:
        yield f"image_id {shown(row.get('image_id'))} is not in `images`; add the image or remove the annotation"
    if category_row is None:
        category = f"category_id {shown(row.get('category_id'))} ({image})"
        yield f"{category} is not in `categories`; add the category or correct the id"
    if box is None:
        instead = " (and there is no usable segmentation)" if not row.get("bbox") else ""
        stated = shown(row.get("bbox"))
        yield f"bbox ({image}) must be four finite numbers [x, y, width, height], not {stated}{instead}"
    if row.get("area") is not None and number(row["area"]) is None:
        yield f"area ({image}) must be a finite number, not {shown(row['area'])}"
    for key in ("iscrowd", "ignore"):
        if flag(row.get(key)) is None:
            yield f"{key} ({image}) must be 0 or 1, not {shown(row[key])}"
