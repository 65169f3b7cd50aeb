"""A cleaned copy of a COCO dictionary, and a line for every change."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.data.doctor.classes import shifted_ids
from engine.data.formats.coco_rows import read_categories, read_images
from engine.data.formats.segmentation import extent
from engine.data.formats.values import Id, IdRows, flag, identifier, number, numbers
from engine.errors import InputError, shown

Row = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """One change to an annotation file.

    Attributes:
        code: of the finding that it answers.
        what: "annotation" or "image".
        id: as the file has it.
        text: what was changed, and into what.
    """

    code: str
    what: str
    id: Any
    text: str

    def record(self) -> Row:
        """Plain values, for JSON; an id that is none is text."""
        own = identifier(self.id)
        return {**vars(self), "id": shown(self.id) if own is None and self.id is not None else own}


@dataclass(frozen=True)
class FileFacts:
    """What is known of the image files, by the `file_name` in the annotation file.

    Attributes:
        sizes: (height, width) of the files, as far as they are known.
        unreadable: why files cannot be read.
        form: "relative" or "corners" where nearly all boxes are written so, else "".
    """

    sizes: Mapping[str, tuple[int, int]]
    unreadable: Mapping[str, str]
    form: str = ""


def readable(data: Any) -> Row:
    """A copy of `data`, a COCO dictionary, without the annotations that a reader refuses; else as `cleaned`."""
    return cleaned(data, FileFacts({}, {}), only_refused=True)[0]


def cleaned(data: Any, files: FileFacts, only_refused: bool = False) -> tuple[Row, list[Change]]:
    """A copy of `data`, a COCO dictionary, without what cannot be trained on, and the changes.

    Images whose file cannot be read are removed, stated sizes corrected. Annotations are removed if their image,
    category or box cannot be used, if they have no area, lie outside their image or repeat another one; boxes are
    clipped to their image; repeated ids become new ones. Where most images turn out to be smaller than stated while
    their boxes fit the stated size, the boxes are scaled with them. What only a person can decide stays: equal boxes of
    two classes, names, categories.

    Args:
        only_refused: do no more than is needed to read the result.

    Raises:
        InputError: `data` cannot be cleaned by rule: its outline, its images or its categories are faulty, or its
            category ids look shifted.
    """
    annotations = data.get("annotations", []) if isinstance(data, dict) else None
    rows = [data.get(key) if isinstance(data, dict) else None for key in ("images", "categories")]
    if not all(isinstance(each, list) and all(isinstance(row, dict) for row in each) for each in [annotations, *rows]):
        raise InputError("images, categories and annotations must be lists of objects; correct the file by hand")
    if shifted := shifted_ids(data):
        raise InputError(f"{shifted.message}; correct them by hand")
    # Rows are changed below, and values in them replaced: a deep copy would go too deep in some files.
    data = {**data, "images": [dict(row) for row in data["images"]]}
    data["categories"] = [dict(row) for row in data["categories"]]
    annotations = [dict(row) for row in annotations]
    changes: list[Change] = []
    images, categories = (
        _rows_of(read_images(data["images"])),
        _rows_of(read_categories(data["categories"], annotations)),
    )
    factors = {} if only_refused else _factors(data, images, files)
    size_of: dict[int, tuple[int, int]] = {}  # row of an image that stays -> its size, (0, 0) if it is not known
    data["images"] = [row for row in data["images"] if _keep_image(row, images, files, size_of, changes)]
    target = _Target(images, categories, size_of, factors, files.form, only_refused)
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for row in annotations:
        reason = _clean_annotation(row, target, changes)
        key = None if reason else (images.find(row["image_id"]), categories.find(row["category_id"]), *row["bbox"])
        key = key and (*key, bool(flag(row.get("iscrowd"))))
        if key in seen and not key[-1] and not only_refused:
            reason = ("BOX_REPEATED", "repeats another annotation")
        if reason:
            changes.append(Change(reason[0], "annotation", row.get("id"), f"removed: {reason[1]}"))
        else:
            seen.add(key)
            kept.append(row)
    _renumber(kept, changes)
    for what, written in (("annotation", kept), ("image", data["images"]), ("category", data["categories"])):
        for row in written:
            _drop_unwritable(row, what, changes)
    data["annotations"] = kept
    return data, changes


class _Rows:
    """Which row an id means."""

    def __init__(self, rows: IdRows, count: int) -> None:
        self.find, self.count = rows.find, count


def _rows_of(reader: Any) -> _Rows:
    """What a reader of the loader returns; its first fault is raised."""
    try:
        fault = next(reader)
    except StopIteration as end:
        return _Rows(end.value.rows, len(end.value.ids))
    raise InputError(f"{fault}; correct it by hand")


def _keep_image(
    row: Row, images: _Rows, files: FileFacts, size_of: dict[int, tuple[int, int]], changes: list[Change]
) -> bool:
    name = row["file_name"]
    if name in files.unreadable:
        changes.append(Change("FILE_UNREADABLE", "image", row["id"], f"removed: {files.unreadable[name]}"))
        return False
    stated = (number(row.get("height")) or 0, number(row.get("width")) or 0)
    size = files.sizes.get(name) or (int(stated[0]), int(stated[1]))
    if all(stated) and size != stated:
        text = f"size {stated[1]:g} x {stated[0]:g} became {size[1]} x {size[0]}"
        changes.append(Change("SIZE_WRONG", "image", row["id"], text))
        row |= {"height": size[0], "width": size[1]}
    size_of[images.find(row["id"])] = size if all(size) else (0, 0)
    return True


@dataclass(frozen=True)
class _Target:
    """What annotations are held against: rows by id, and by row of an image its size and the factor for its boxes."""

    images: _Rows
    categories: _Rows
    size_of: Mapping[int, tuple[int, int]]
    factors: Mapping[int, tuple[float, float]]
    form: str
    only_refused: bool


def _factors(data: Row, images: _Rows, files: FileFacts) -> dict[int, tuple[float, float]]:
    """Row of an image -> by what its boxes are to be scaled in x and y, where the images were made smaller."""
    factors, sides = {}, {}
    for row in data["images"]:
        size, stated = files.sizes.get(row["file_name"]), (number(row.get("height")), number(row.get("width")))
        if size and all(stated) and max(size) < max(stated):
            factor = max(size) / max(stated)
            if all(abs(a - b * factor) < 1.5 for a, b in zip(size, stated, strict=True)):
                index = images.find(row["id"])
                factors[index], sides[index] = (size[1] / stated[1], size[0] / stated[0]), (*size, *stated)
    fits_stated, reaches_out = set(factors), set()
    for row in data.get("annotations", []):
        index, box = images.find(row.get("image_id")), numbers(row.get("bbox"), 4)
        if index in factors and box:
            height, width, stated_height, stated_width = sides[index]
            right, low = box[0] + box[2], box[1] + box[3]
            if right > width + 1 or low > height + 1:
                reaches_out.add(index)
            if right > stated_width + 1 or low > stated_height + 1:
                fits_stated.discard(index)
    return factors if len(reaches_out & fits_stated) > len(factors) / 2 else {}


def _clean_annotation(row: Row, target: _Target, changes: list[Change]) -> tuple[str, str] | None:
    """Correct an annotation in place, or say why it is to be removed: a code and a reason."""
    image, category = target.images.find(row.get("image_id")), target.categories.find(row.get("category_id"))
    if image is None or category is None:
        key = "image_id" if image is None else "category_id"
        return "ID_UNKNOWN", f"{key} {shown(row.get(key))} is not listed"
    if image not in target.size_of:
        return "FILE_UNREADABLE", "its image was removed"
    box = numbers(row.get("bbox"), 4) or (None if row.get("bbox") else extent(row.get("segmentation")))
    if box is None:
        return "BOX_INVALID", f"bbox {shown(row.get('bbox'))} is not four numbers"
    for key in ("iscrowd", "ignore"):
        if flag(row.get(key)) is None:
            return "VALUE_INVALID", f"{key} {shown(row[key])} is not 0 or 1"
    if target.only_refused:
        row |= {"bbox": box, "area": number(row.get("area"))}
        return None
    height, width = target.size_of[image]
    new = _in_pixels(box, (height, width), target.form)
    code = {"relative": "BOX_RELATIVE", "corners": "BOX_CORNERS"}.get(target.form, "")
    if image in target.factors:
        new = [value * target.factors[image][k % 2] for k, value in enumerate(new)]
        code = code or "SIZE_WRONG"
    x1, y1, x2, y2 = new[0], new[1], new[0] + new[2], new[1] + new[3]
    if not all(map(math.isfinite, new)):
        return "BOX_INVALID", f"bbox {shown(box)} is beyond any image"
    if not (x2 > x1 and y2 > y1):
        return "BOX_NO_AREA", f"bbox {shown(box)} has no area"
    if height and width:
        if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
            return "BOX_OUTSIDE", f"bbox {shown(box)} lies outside its image of {width} x {height}"
        clipped = [max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)]
        if clipped != [x1, y1, x2, y2]:
            new = [clipped[0], clipped[1], clipped[2] - clipped[0], clipped[3] - clipped[1]]
            code = code or "BOX_REACHES_OUT"
    if new != row.get("bbox"):
        if new != box:
            changes.append(Change(code, "annotation", row.get("id"), f"bbox {shown(box)} became {shown(new)}"))
        row["bbox"] = new
    _correct_area(row, changes)
    return None


def _in_pixels(box: list[float], size: tuple[int, int], form: str) -> list[float]:
    """[x, y, width, height] in pixels of a box that is written in `form`."""
    x, y, width, height = box
    if form == "corners":
        return [x, y, width - x, height - y]
    if form == "relative" and all(size):
        return [x * size[1], y * size[0], width * size[1], height * size[0]]
    return list(box)


def _correct_area(row: Row, changes: list[Change]) -> None:
    if row.get("area") is None:
        return
    area, most = number(row["area"]), row["bbox"][2] * row["bbox"][3]
    if area is None or area <= 0 or area > most * 1.1 + 2:
        changes.append(Change("AREA_WRONG", "annotation", row.get("id"), f"area {shown(row['area'])} became {most:g}"))
        row["area"] = most if math.isfinite(most) else None


def _drop_unwritable(row: Row, what: str, changes: list[Change]) -> None:
    """Remove what JSON does not have: NaN and infinities, which Python reads, and what is nested too deeply."""
    for key in list(row):
        try:
            json.dumps(row[key], allow_nan=False)
        except (ValueError, RecursionError):
            changes.append(Change("VALUE_INVALID", what, row.get("id"), f"{key} removed: it cannot be written as JSON"))
            del row[key]


def _renumber(rows: list[Row], changes: list[Change]) -> None:
    """Give annotations whose id is that of another one, or no id at all, a new id; those without the key stay so."""
    ids = [identifier(row.get("id")) for row in rows]
    free = max((each for each in ids if isinstance(each, int)), default=0)
    seen: set[Id] = set()
    for row, own in zip(rows, ids, strict=True):
        if row.get("id") is not None and (own is None or own in seen):
            free += 1
            changes.append(Change("ID_REPEATED", "annotation", row["id"], f"id became {free}"))
            row["id"] = free
        elif own is not None:
            seen.add(own)
