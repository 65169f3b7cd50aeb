"""Which format annotations have, from what the files hold, and reading them in it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from engine.data.annotations import FORMATS, AnnotationTable, StringTable, flat_ids, unused_ids
from engine.data.formats import csv_table, txt
from engine.data.formats.files_below import files_below
from engine.data.formats.image_names import ImageNames
from engine.data.formats.text_file import read_text
from engine.data.formats.values import exact, whole_number
from engine.data.image_file import IMAGE_SUFFIXES
from engine.data.image_paths import find_file_names
from engine.errors import InputError
from engine.files import read_bytes
from engine.log import get_logger
from engine.registry import lookup

logger = get_logger(__name__)

_HEAD = 1 << 16
"""Bytes at the start of a JSON file that tell its format, so that a large one is not parsed twice."""
_SAMPLE = 200
"""Files of a folder that are looked at."""
_COCO_KEYS = re.compile(rb'"(images|annotations|categories|licenses|info)"\s*:')
_LABELME_KEYS = re.compile(rb'"(shapes|imagePath|imageData|imageHeight)"\s*:')
_COMPETITION_KEYS = re.compile(rb'"(defect_name|category|name)"\s*:')


def read_annotations(
    ann_file: Path, img_dir: Path | None, format_name: str = "", unlisted_are_empty: bool = False
) -> AnnotationTable:
    """The annotations of a file or folder of any format.

    Args:
        img_dir: the folder of the images; without it, names and sizes are those that the annotations state.
        format_name: a name in `FORMATS`; "" recognises it.
        unlisted_are_empty: images in `img_dir` that the annotations do not name are images without boxes, with ids of
            their own.

    Raises:
        InputError: the format is not recognised, or the annotations are faulty.
    """
    reader = lookup(FORMATS, format_name or recognise(ann_file), "DATASETS.CATALOG.NAME.format")
    table = reader(ann_file, img_dir)
    return _with_unlisted(table, img_dir, ann_file) if unlisted_are_empty and img_dir is not None else table


def recognise(ann_file: Path) -> str:
    """The name in `FORMATS` of the format that a file or folder of annotations has.

    Raises:
        InputError: it has none of them, or may have several.
    """
    found = _of_folder(ann_file) if os.path.isdir(ann_file) else _of_file(ann_file)
    if len(found) == 1:
        return found[0]
    what = f"may be {' or '.join(found)}" if found else "is in no format that is known by its content"
    if not found and os.path.isdir(ann_file) and (files := files_below(ann_file, (".json", ".csv"))):
        raise InputError(f"{ann_file}: is a folder; name the file with the annotations, such as {ann_file / files[0]}")
    raise InputError(f"{ann_file}: {what}; write format: NAME in the catalog ({', '.join(FORMATS.names())})")


def looks_like_coco(path: Path) -> bool:
    """Whether the start of a JSON file has one of the keys of COCO files."""
    return bool(_COCO_KEYS.search(read_bytes(path, _HEAD)))


def _of_file(path: Path) -> list[str]:
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return ["voc"]
    if suffix in (".yaml", ".yml"):
        return ["yolo"]
    head = read_bytes(path, _HEAD)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if suffix == ".json" or start in (b"{", b"["):
        return _of_json(head, start)
    if suffix in (".csv", ".tsv"):
        return ["csv"]
    return _of_text(path, read_text(path)) if suffix in (".txt", "") else []


def _of_json(head: bytes, start: bytes) -> list[str]:
    if start == b"[" and _COMPETITION_KEYS.search(head) and b'"image_id"' not in head:
        return ["competition"]
    if _LABELME_KEYS.search(head) and not _COCO_KEYS.search(head):
        return ["labelme"]
    return ["coco"]  # the usual one, whose reader says what is wrong with others


def _of_text(path: Path, text: str) -> list[str]:
    """A list of images, of VOC or YOLO, or a table, or the lines of one image."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if found := _of_lines(lines):
        return found
    if csv_table.has_known_columns(csv_table.first_row(text), path):
        return ["csv"]
    if any((each / "Annotations").is_dir() for each in path.parents):
        return ["voc"]
    is_list = lines and all(os.path.splitext(line)[1].lower() in IMAGE_SUFFIXES for line in lines[:_SAMPLE])
    return ["yolo"] if is_list else []


def _of_folder(folder: Path) -> list[str]:
    """The formats with files in the folder; text files count if nothing else is there."""
    found = []
    if files_below(folder / "Annotations", (".xml",)) or files_below(folder, (".xml",)):
        found.append("voc")
    heads = [read_bytes(folder / name, _HEAD) for name in islice(files_below(folder, (".json",)), _SAMPLE)]
    kinds = [_of_json(head, head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1])[0] for head in heads]
    if "labelme" in kinds:
        found.append("labelme")
    if found:
        return found
    names = txt.annotation_files(folder)
    if not names:
        return []
    lines: list[str] = []
    for name in names:
        lines += [line.strip() for line in read_text(folder / name).split("\n") if line.strip()]
        if len(lines) >= _SAMPLE:
            break
    if not lines:
        raise InputError(
            f"{folder}: all of its {len(names)} text files are empty, so there are no boxes; write format: NAME"
            " in the catalog (txt, yolo) if that is meant"
        )
    return _of_lines(lines)


def _of_lines(lines: list[str]) -> list[str]:
    """What lines of one image may be: YOLO's begin with a whole number and go on with fractions of 1."""
    looks: set[str] = set()
    for line in lines[:_SAMPLE]:
        words = re.split(r"[\s,;]+", line)
        values = [exact(word) for word in words]
        if len(words) < 5 or None in values[:4]:
            continue
        are_fractions = None not in values and all(-1 < value < 2 for value in values[1:])
        if not are_fractions or whole_number(words[0]) is None:
            looks.add("txt")
        else:
            looks.add("yolo" if any(value % 1 for value in values[1:]) else "unclear")
    if looks <= {"unclear"}:
        return ["txt", "yolo"] if looks else []
    return sorted(looks - {"unclear"})


def _with_unlisted(table: AnnotationTable, img_dir: Path, ann_file: Path) -> AnnotationTable:
    known = set(find_file_names(str(ann_file), img_dir, table.file_names))  # as the folder spells them
    names = [name for name in ImageNames(img_dir).names if name not in known]
    logger.info("%s: %d images of %s that it does not name are images without boxes", ann_file, len(names), img_dir)
    if not names:
        return table
    ids = [*table.image_ids, *unused_ids(list(table.image_ids), len(names))]
    sizes = np.concatenate([table.sizes, np.zeros((len(names), 2), dtype=np.int32)])
    return replace(table, image_ids=flat_ids(ids), file_names=StringTable([*table.file_names, *names]), sizes=sizes)
