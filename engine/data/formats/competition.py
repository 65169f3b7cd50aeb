"""The list of the fabric competition: `[{"name", "defect_name", "bbox": [x1, y1, x2, y2]}, ...]`, an entry per box.

`category` is read for `defect_name`. Images without an entry are no part of the data set, unless the catalog says that
they have no defects (`unlisted_are_empty`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.data.annotations import FORMATS, WRITERS, AnnotationTable
from engine.data.formats.class_list import class_list_text, find_class_list
from engine.data.formats.collector import Collector
from engine.data.formats.corners import to_corners, to_xywh
from engine.data.formats.image_names import ImageNames
from engine.data.formats.per_image import images_of, write_lines
from engine.data.formats.values import exact_numbers
from engine.errors import InputError, shown
from engine.files import read_json
from engine.spelling import is_slip, is_text, normal_name

_CLASS_KEYS = ("defect_name", "category")


@FORMATS.register("competition")
def read(ann_file: Path, img_dir: Path | None = None) -> AnnotationTable:
    """The annotations of a list of boxes, see above.

    Raises:
        InputError: the file cannot be read, is no such list, or an entry is faulty; entries count from 0.
    """
    entries = read_json(ann_file, floats=str)  # so that boxes are differences of the numbers as written
    if not isinstance(entries, list):
        raise InputError(f"{ann_file}: must hold a list of {{name, defect_name, bbox}}, not {type(entries).__name__}")
    images = ImageNames(img_dir)
    found = Collector(ann_file, find_class_list(ann_file.parent))
    for number, entry in enumerate(entries):
        _add(entry, f"{ann_file}: entry {number}", images, found)
    return found.table()


@WRITERS.register("competition")
def write(table: AnnotationTable, folder: Path) -> tuple[str, str]:
    """`annotations.json`, and `classes.txt`; images without boxes and ignore regions have no entry."""
    entries = []
    for image in images_of(table):
        for class_name, box, crowd in image.boxes:
            if not crowd:
                name, label = (json.dumps(each, ensure_ascii=False) for each in (image.file_name, class_name))
                bbox = ", ".join(to_corners(box))  # not through floats, which cannot hold every sum
                entries.append(f'{{"name": {name}, "defect_name": {label}, "bbox": [{bbox}]}}')
    write_lines(folder / "annotations.json", "[\n" + ",\n".join(entries) + "\n]\n")
    if classes := class_list_text(table.category_names):
        write_lines(folder / "classes.txt", classes)
    return "annotations.json", "images"


def _add(entry: Any, where: str, images: ImageNames, found: Collector) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: must be an object with name, defect_name, bbox, not {shown(entry)}")
    key = next((each for each in _CLASS_KEYS if each in entry), None)
    missing = [each for each in ("name", "bbox") if each not in entry] + ([] if key else ["defect_name"])
    if missing:
        slips = [each for each in entry if is_slip(each, missing[0])]
        raise InputError(f"{where}: lacks {', '.join(missing)}" + (f"; rename {shown(slips[0])}" if slips else ""))
    if key == "category" and "score" in entry:
        raise InputError(f"{where}: has a score, so this is a file of results; name the file of annotations")
    name, class_name = entry["name"], entry[key]
    if not isinstance(name, str) or not name or "\0" in name or not is_text(name):
        raise InputError(f"{where}: `name` must be the name of an image, not {shown(name)}")
    class_name = str(class_name) if type(class_name) in (int, str) else ""
    if not normal_name(class_name) or not is_text(class_name):
        raise InputError(f"{where} ({shown(name)}): `{key}` must be the name of a class, not {shown(entry[key])}")
    corners = exact_numbers(entry["bbox"], 4)
    box = to_xywh(corners) if corners else None
    if box is None:
        stated = shown(entry["bbox"])
        raise InputError(f"{where} ({shown(name)}): bbox must be four finite numbers [x1, y1, x2, y2], not {stated}")
    found.add_box(images.of_path(name, found.source.parent), class_name, box)
