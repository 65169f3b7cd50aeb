"""From one format to another: written as a whole or not at all, read again, and compared."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.annotations import WRITERS, AnnotationTable
from engine.data.formats import coco
from engine.data.formats.class_list import ClassList
from engine.data.formats.per_image import check_inside, images_of
from engine.data.formats.recognise import read_annotations, recognise
from engine.data.formats.values import whole_number
from engine.data.image_paths import find_file_names
from engine.data.sizes import measure_sizes
from engine.errors import InputError, listed, shown
from engine.files import new_folder, refuse_existing
from engine.log import get_logger
from engine.registry import lookup
from engine.spelling import normal_name

SINGLE_FILES = {"coco": ".json", "competition": ".json", "csv": ".csv"}
"""Formats that are one file, and its suffix."""
_WITH_CLASSES = ("coco", "yolo", "txt")
"""Formats whose list of classes may not be empty."""


@dataclass(frozen=True)
class Converted:
    """What a conversion wrote, as an entry of `DATASETS.CATALOG` names it, and what differs, see `differences`."""

    ann_file: Path
    img_dir: Path | None
    differences: list[str]


def convert(
    table: AnnotationTable, output: Path, format_name: str, img_dir: Path | None = None, transfer: str = ""
) -> Converted:
    """Write annotations in a format of `WRITERS`, and perhaps the images.

    Args:
        output: a new folder; or, for a format of `SINGLE_FILES`, a new file with its suffix.
        img_dir: the folder of the images, where there is one; sizes that are not stated are measured there.
        transfer: "copy" or "link" puts the images beside the annotations.

    Raises:
        InputError: `output` exists or cannot be written, the format is unknown or cannot hold a name, or a size that it
            needs is not known.
    """
    writer = lookup(WRITERS, format_name, "--to")
    is_file = output.suffix.lower() == SINGLE_FILES.get(format_name)
    refuse_existing(output)
    if is_file and transfer:
        raise InputError(f"{output}: is a file; name a folder for annotations and images")
    if not table.category_names and format_name in _WITH_CLASSES:
        raise InputError(f"there are no boxes, so no classes for {format_name}; name them with --classes")
    if img_dir is not None:
        check_is_folder(img_dir)
        table = with_measured_sizes(table, img_dir)
    folder = output.with_name(f".{output.name}.{uuid.uuid4().hex}") if is_file else output
    try:
        with new_folder(folder) as made:
            ann_file, images = writer(table, made)
            if img_dir is None and format_name == "yolo":
                raise InputError(
                    "YOLO's boxes are relative to the sizes of the images; name their folder with --images"
                )
            missing = _transfer(table, img_dir, made / images, transfer) if img_dir is not None else []
            with _quiet():  # of a folder that is about to have another name
                again = read_annotations(made / ann_file, made / images if transfer else img_dir, format_name)
            lost = differences(table, again)
            if missing:
                lost.append(f"{len(missing)} image files are missing in {img_dir}, such as {shown(missing[0])}")
        if is_file:
            os.replace(folder / ann_file, output)
            return Converted(output, img_dir, lost)
    finally:
        if is_file:
            shutil.rmtree(folder, ignore_errors=True)
    return Converted(folder / ann_file, folder / images if transfer else img_dir, lost)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def coco_of(ann_file: Path, img_dir: Path | None = None, format_name: str = "") -> dict[str, Any]:
    """Annotations of any format as a COCO dictionary; a COCO file as it stands, with all that it holds.

    Raises:
        InputError: the annotations are faulty, or their format is not recognised.
    """
    if img_dir is not None:
        check_is_folder(img_dir)
    if (format_name or recognise(ann_file)) == "coco":
        data = coco.load(ann_file)
        coco.to_table(data, ann_file)  # refuses a faulty file
        return data
    table = read_annotations(ann_file, img_dir, format_name)
    return coco.to_coco(table if img_dir is None else with_measured_sizes(table, img_dir))


def with_measured_sizes(table: AnnotationTable, img_dir: Path) -> AnnotationTable:
    """The table with the sizes of image files where they are not stated, and their names as the folder spells them."""
    names = find_file_names(str(img_dir), img_dir, table.file_names)
    sizes = table.sizes.copy()
    unknown = np.flatnonzero(sizes[:, 0] == 0)
    sizes[unknown] = measure_sizes(lambda index: img_dir / names[unknown[index]], sizes[unknown])[0]
    return replace(table, file_names=names, sizes=sizes)


def with_classes(table: AnnotationTable, classes: ClassList) -> AnnotationTable:
    """The table with the classes of a list, in its order, numbered as in it or from 1.

    Classes that are numbers get the names of these numbers; others keep theirs.

    Raises:
        InputError: the table has a class that is not in the list.
    """
    numbers = [whole_number(name) for name in table.category_names]
    names = list(table.category_names)
    if not set(names) <= set(classes.names) and None not in numbers:
        by_number = classes.names_by_number(numbers)
        names = [by_number[number] for number in numbers]
    if missing := [name for name in names if name not in classes.names]:
        raise InputError(f"{classes.source}: lacks the class {shown(missing[0])}, which the annotations have; add it")
    ids = dict(zip(classes.names, classes.numbers or range(1, len(classes.names) + 1), strict=True))
    ordered = sorted(classes.names, key=ids.__getitem__)
    rows = np.array([ordered.index(name) for name in names], dtype=np.int64)
    return replace(
        table,
        category_ids=[ids[name] for name in ordered],
        category_names=ordered,
        category_rows=rows[table.category_rows] if len(rows) else table.category_rows,
    )


def differences(before: AnnotationTable, after: AnnotationTable) -> list[str]:
    """What `after` has not or has otherwise than `before`, one line each with a count; [] if they hold the same.

    Images are compared by file name, and their boxes in the order in which they come.
    """
    found = []
    old, new = ({each.file_name: each for each in images_of(table)} for table in (before, after))
    if repeats := len(before.file_names) - len(old):
        found.append(f"{repeats} repeated entries of images are left out")
    missing = [name for name in old if name not in new]
    is_empty = [name for name in missing if not old[name].boxes]
    for names, what in (
        (is_empty, "images without boxes"),
        ([name for name in missing if old[name].boxes], "images"),
    ):
        if names:
            found.append(f"{len(names)} {what} are left out, such as {shown(names[0])}")
    num_crowd = num_boxes = num_changed = 0
    for name, image in new.items():
        boxes = Counter(old[name].boxes if name in old else ())
        kept = Counter(image.boxes)
        crowd = sum(count for box, count in (boxes - kept).items() if box[2])
        num_crowd += crowd
        num_boxes += max(sum(boxes.values()) - sum(kept.values()) - crowd, 0)
        num_changed += sum((kept - boxes).values())
    num_crowd += sum(box[2] for name in missing for box in old[name].boxes)
    found += [f"{num_crowd} ignore regions are left out"] if num_crowd else []
    found += [f"{num_boxes} boxes are left out"] if num_boxes else []
    found += [f"{num_changed} boxes are not the same"] if num_changed else []
    return [*found, *_other_differences(before, after)]


def _other_differences(before: AnnotationTable, after: AnnotationTable) -> list[str]:
    """Those of classes, ids and areas."""
    found = []
    lost = [name for name in before.category_names if name not in after.category_names]
    if lost:
        found.append(f"{len(lost)} classes without boxes are left out: {listed(lost[:5])}")
    ids, new_ids = (dict(zip(each.category_names, each.category_ids, strict=True)) for each in (before, after))
    if any(ids.get(name) != category_id for name, category_id in new_ids.items()):
        found.append("ids of classes are others")
    image_ids = dict(zip(before.file_names, before.image_ids, strict=True))
    if any(image_ids.get(name) != each for name, each in zip(after.file_names, after.image_ids, strict=True)):
        found.append("ids of images are others")
    with np.errstate(over="ignore"):
        products = before.boxes_xywh[:, 2] * before.boxes_xywh[:, 3]
    if num_areas := int((before.areas != products).sum()):
        is_kept = len(before.areas) == len(after.areas) and (np.sort(before.areas) == np.sort(after.areas)).all()
        if not is_kept:
            found.append(f"areas of {num_areas} boxes (of their outlines) become width x height")
    return found


def _transfer(table: AnnotationTable, img_dir: Path, target: Path, transfer: str) -> list[str]:
    """Copy or link the images below `target`, or neither if `transfer` is ""; the names of those that are missing."""
    missing: list[str] = []
    for name in dict.fromkeys(table.file_names):
        if transfer:
            check_inside(name)
        source, place = img_dir / name, target / name
        if not os.path.isfile(source):
            missing.append(name)
        if not transfer or missing[-1:] == [name]:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if transfer == "link":
            place.symlink_to(os.path.realpath(source))
        else:
            shutil.copyfile(source, place)
    return missing


def check_is_folder(img_dir: Path) -> None:
    """Raise an `InputError` if there is no such folder of images."""
    if not os.path.isdir(img_dir):
        raise InputError(f"--images {img_dir}: is no folder; name the folder of the images")


def of_names(text: str) -> ClassList:
    """A list of classes from the command line, with commas between the names.

    Raises:
        InputError: a name is empty, or stands there twice.
    """
    names = [normal_name(name) for name in text.split(",")]
    if not all(names):
        raise InputError(f"--classes {shown(text)}: has an empty name; write names with commas between them")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"--classes {shown(text)}: has the class {shown(repeated[0])} twice; remove one")
    return ClassList(names, None, "--classes")
