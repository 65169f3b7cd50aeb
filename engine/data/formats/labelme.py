"""LabelMe: a JSON file for each image, with its `shapes`.

A data set is a folder of them, or one file. The box of a shape is that around its points; of a circle, whose points
are its centre and one of its rim, that around the circle. Shapes with the same `group_id` and `label` are the parts of
one object. A shape with a flag `ignore`, `difficult` or `crowd` that is true is an ignore region. `imageData` is not
read. A file without shapes is an image without boxes; images without a file are no part of the data set.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PureWindowsPath
from typing import Any

from engine.data.annotations import FORMATS, WRITERS, AnnotationTable
from engine.data.formats.class_list import class_list_text, find_class_list
from engine.data.formats.collector import Collector
from engine.data.formats.corners import Box, to_corners, to_xywh
from engine.data.formats.files_below import files_below
from engine.data.formats.image_names import ImageNames
from engine.data.formats.per_image import files_of_images, images_of, write_lines
from engine.data.formats.values import exact_numbers, flag, whole_number
from engine.data.labelme_text import file_text, shape_text
from engine.errors import InputError, shown
from engine.files import read_json
from engine.spelling import is_slip, is_text, normal_name

_IGNORE_FLAGS = ("ignore", "difficult", "crowd", "iscrowd")


@FORMATS.register("labelme")
def read(ann_file: Path, img_dir: Path | None = None) -> AnnotationTable:
    """The annotations of a folder of LabelMe files, or of one, see above; `img_dir` tells which suffix an image has.

    Raises:
        InputError: there is no file, or one is faulty; names the file and the shape.
    """
    is_folder = ann_file.is_dir()
    folder = ann_file if is_folder else ann_file.parent
    names = files_below(folder, (".json",)) if is_folder else [ann_file.name]
    if not names:
        raise InputError(f"{ann_file}: holds no JSON files; name the folder that does")
    images = ImageNames(img_dir)
    found = Collector(ann_file, find_class_list(folder))
    for name in names:
        path = folder / name
        data = read_json(path, floats=str)  # so that boxes are differences of the numbers as written
        if not isinstance(data, dict) or not isinstance(data.get("shapes"), list):
            slips = [key for key in data if is_slip(key, "shapes")] if isinstance(data, dict) else []
            hint = f"; did you mean {shown(slips[0])}?" if slips and "shapes" not in data else ""
            raise InputError(f"{path}: not a LabelMe file: it must be an object with a list `shapes`{hint}")
        stem = os.path.splitext(name)[0]
        file_name = images.of_stem(stem) or _stated_name(data.get("imagePath"), stem)
        sides = [whole_number(data.get(key)) or 0 for key in ("imageHeight", "imageWidth")]
        is_size = all(0 < side < 2**31 for side in sides)
        found.add_image(file_name, tuple(sides) if is_size else (0, 0), path)
        _add_shapes(data["shapes"], path, file_name, found)
    return found.table()


@WRITERS.register("labelme")
def write(table: AnnotationTable, folder: Path) -> tuple[str, str]:
    """`a.json` beside `a.jpg`, with rectangles, and `classes.txt`.

    Raises:
        InputError: the files of two images would have the same name.
    """
    for name, image in zip(files_of_images(table, ".json"), images_of(table), strict=True):
        shapes = [shape_text(label, to_corners(box), is_ignored) for label, box, is_ignored in image.boxes]
        text = file_text(image.file_name, image.size, shapes)
        write_lines(folder / name, text)
    if classes := class_list_text(table.category_names):
        write_lines(folder / "classes.txt", classes)
    return ".", "."


def _stated_name(image_path: Any, stem: str) -> str:
    """The image that a file states, in the folder of that file; with the name of the file itself if it states none."""
    folder, _, base = stem.rpartition("/")
    name = image_path if isinstance(image_path, str) and "\0" not in image_path and is_text(image_path) else ""
    if os.path.splitext(name)[0] != base:  # as LabelMe writes it: a path, of either system
        name = PureWindowsPath(name).name
    name = name or f"{base}.jpg"
    return f"{folder}/{name}" if folder else name


def _add_shapes(shapes: Sequence[Any], path: Path, file_name: str, found: Collector) -> None:
    groups: dict[tuple[str, Any], list[tuple[list[list[Decimal]], bool]]] = {}
    for number, shape in enumerate(shapes, start=1):
        where = f"{path}: shape {number}"
        if not isinstance(shape, dict):
            raise InputError(f"{where}: must be an object, not {shown(shape)}")
        label = shape.get("label")
        label = normal_name(label if isinstance(label, str) else "" if label is None else str(label))
        if not is_text(label):
            raise InputError(f"{where}: `label` {shown(label)} is not valid Unicode; rename it")
        if not label:
            slip = next((key for key in shape if key != "label" and is_slip(key, "label")), None)
            raise InputError(f"{where}: has no `label`" + (f"; did you mean {shown(slip)}?" if slip else ""))
        where += f" ({shown(label)})"
        points = _points(shape, where)
        group = shape.get("group_id")
        is_part = isinstance(group, int | str) and not isinstance(group, bool)
        key = (label, group if is_part else ("alone", number))
        groups.setdefault(key, []).append((points, _is_ignored(shape.get("flags"), where)))
    for (label, _), parts in groups.items():
        box = _box([point for points, _ in parts for point in points])
        if box is None:
            raise InputError(f"{path}: a box of {shown(label)} is too large for a number; correct it")
        found.add_box(file_name, label, box, any(is_ignored for _, is_ignored in parts))


def _points(shape: Mapping[str, Any], where: str) -> list[list[Decimal]]:
    """Points whose extent is that of the shape."""
    points = shape.get("points")
    found = [exact_numbers(point, 2) for point in points] if isinstance(points, list) else []
    if not found or None in found:
        raise InputError(f"{where}: `points` must be a list of [x, y], not {shown(points)}")
    if shape.get("shape_type") != "circle":
        return found
    if len(found) != 2:
        raise InputError(f"{where}: a circle must have two points, its centre and one of its rim, not {len(found)}")
    (x, y), rim = found
    radius = Decimal(repr(math.hypot(float(x) - float(rim[0]), float(y) - float(rim[1]))))
    return [[x - radius, y - radius], [x + radius, y + radius]]


def _box(points: Sequence[Sequence[Decimal]]) -> Box | None:  # a rectangle may be drawn from any of its corners
    xs, ys = ([point[k] for point in points] for k in (0, 1))
    return to_xywh((min(xs), min(ys), max(xs), max(ys)))


def _is_ignored(flags: Any, where: str) -> bool:
    if flags in (None, [], {}):
        return False
    if not isinstance(flags, dict):
        raise InputError(f"{where}: `flags` must be an object, not {shown(flags)}")
    return any(flag(flags.get(name)) for name in _IGNORE_FLAGS)
