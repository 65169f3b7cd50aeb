"""From annotations that were found to the entries of a catalog: a set to train on and one to test on, always.

What is declared are the files that are there, if they can be used as they are. Otherwise COCO files are written beside
the configuration: where nothing says which images are for testing, where the sets name different classes, or where a
file names no image as it is called. The originals stay untouched.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.annotations import AnnotationTable
from engine.data.classes import unknown_names
from engine.data.formats.find_sets import FoundSet, split_of
from engine.data.formats.image_names import ImageNames
from engine.data.formats.recognise import read_annotations
from engine.data.splits import assign, units_of
from engine.errors import InputError, listed, shown
from engine.files import write_json
from engine.spelling import normal_name

TRAIN, VAL, TEST = "train", "val", "test"
_LISTS_DEFECTS_ONLY = ("competition",)
"""Formats with an entry for each box, where images without a box cannot be named."""


@dataclass(frozen=True)
class DeclaredSet:
    """An entry of `DATASETS.CATALOG`; `format` is "" for a COCO file that was written here."""

    split: str
    img_dir: Path
    ann_file: Path
    format: str = ""
    unlisted_are_empty: bool = False


@dataclass
class Declared:
    """The sets by split; `train` and `val` are always there. `notes` say how it came to them, a line each."""

    sets: dict[str, DeclaredSet] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Read:
    """A set with its annotations and the images of them that are there, as the folder names them.

    `rows` are the images that belong to it, if others belong to another split.
    """

    source: FoundSet
    table: AnnotationTable
    names: frozenset[str] = frozenset()
    rows: np.ndarray | None = None

    def present_rows(self) -> np.ndarray:
        """The images of the table whose files are there."""
        images = ImageNames(self.source.img_dir)
        return np.flatnonzero([_in_folder(name, images) is not None for name in self.table.file_names])


def declare_sets(found: Sequence[FoundSet], folder: Path, share: float, seed: int) -> Declared:
    """The entries for `found`.

    Args:
        folder: where COCO files are written, if that is needed.
        share: of the images that are set aside for testing where nothing says which.
        seed: for their choice.

    Raises:
        InputError: there are several files for one split, a file is faulty, or most images are missing.
    """
    declared = Declared()
    sets = {split: _read(each, declared.notes) for split, each in _by_split(_whole_if_in_folders(found)).items()}
    declared.notes += _unnamed(sets.values())
    must_divide = not (TRAIN in sets and (VAL in sets or TEST in sets) and _has_boxes(sets.get(VAL) or sets[TEST]))
    if must_divide:
        whole = sets.get("") or sets.get(TRAIN) or next(iter(sets.values()))
        sets = _divided(whole, share, seed, declared.notes)
    elif VAL not in sets:
        declared.notes.append("tested on the test set, as there is none for validation")
        sets[VAL] = sets.pop(TEST)
    if not _has_boxes(sets[TRAIN]):
        raise InputError(f"{sets[TRAIN].source.ann_file}: there are no boxes to train on; check the annotations")
    names = _all_class_names(each.table for each in sets.values())
    for split, each in sets.items():
        is_usable = not must_divide and not unknown_names(each.table.category_names, sets[TRAIN].table.category_names)
        if is_usable and _are_named_exactly(each):
            source = each.source
            unlisted = source.format in _LISTS_DEFECTS_ONLY
            declared.sets[split] = DeclaredSet(split, source.img_dir, source.ann_file, source.format, unlisted)
            continue
        path = folder / f"instances_{split}.json"
        write_json(path, _coco(each, names))
        declared.sets[split] = DeclaredSet(split, each.source.img_dir, path)
        declared.notes.append(f"written: {path}")
    return declared


def _whole_if_in_folders(found: Sequence[FoundSet]) -> Sequence[FoundSet]:
    """Lists of a VOC folder give way to folders of images by split, as these were made later."""
    first = found[0]
    if first.format != "voc" or first.ann_file.suffix != ".txt":
        return found
    folders = {name.rpartition("/")[0] for name in ImageNames(first.img_dir).names}
    if not all(split_of(Path(folder)) for folder in folders):
        return found
    return [FoundSet("", first.img_dir, first.ann_file.parents[2], "voc")]


def _by_split(found: Sequence[FoundSet]) -> dict[str, FoundSet]:
    splits = {each.split for each in found}
    if "trainval" in splits:
        found = [each for each in found if each.split != ("trainval" if TRAIN in splits else TRAIN)]
    if splits - {""}:
        found = [each for each in found if each.split]  # the others are most likely the whole, before it was split
    chosen: dict[str, FoundSet] = {}
    for each in found:
        split = TRAIN if each.split == "trainval" else each.split
        if split in chosen:
            both = listed(map(str, (chosen[split].ann_file, each.ann_file)))
            what = f"for the split {split}" if split else "that may be meant"
            raise InputError(f"there are several annotations {what}: {both}; name the right file or folder instead")
        chosen[split] = each
    return chosen


def _read(source: FoundSet, notes: list[str]) -> _Read:
    unlisted = source.format in _LISTS_DEFECTS_ONLY
    table = read_annotations(source.ann_file, source.img_dir, source.format, unlisted)
    images = ImageNames(source.img_dir)
    names = [_in_folder(name, images) for name in table.file_names]
    missing = [written for written, name in zip(table.file_names, names, strict=True) if name is None]
    if names and len(missing) > len(names) / 2:
        raise InputError(
            f"{source.ann_file}: {len(missing)} of {len(names)} images, such as {shown(missing[0])}, are not in "
            f"{source.img_dir}; say where they are with --images"
        )
    if missing:
        notes.append(f"{len(missing)} images that {source.ann_file} names are missing, such as {shown(missing[0])}")
    return _Read(source, table, frozenset(name for name in names if name is not None))


def _unnamed(sets: Iterable[_Read]) -> list[str]:
    """A line for each folder with images that no set names."""
    named: dict[Path, set[str]] = {}
    for each in sets:
        named.setdefault(each.source.img_dir, set()).update(each.names)
    counts = {folder: len(set(ImageNames(folder).names) - names) for folder, names in named.items()}
    return [
        f"{n} images in {folder} are not named in the annotations, so they are not used"
        for folder, n in counts.items()
        if n
    ]


def _in_folder(name: str, images: ImageNames) -> str | None:
    """The image that a file name means, as the folder has it; None if there is none."""
    if name in images:
        return name
    path = images.of_path(name, Path())
    return path if path in images else images.of_stem(os.path.splitext(name.replace("\\", "/"))[0])


def _has_boxes(each: _Read) -> bool:
    rows = each.table.image_rows[~each.table.crowd]
    return bool(len(rows) if each.rows is None else np.isin(rows, each.rows).any())


def _divided(whole: _Read, share: float, seed: int, notes: list[str]) -> dict[str, _Read]:
    table = whole.table
    num_images = len(table.file_names)
    splits = [split_of(Path(name).parent) for name in table.file_names]
    if ({TRAIN, VAL} <= set(splits) or {TRAIN, TEST} <= set(splits)) and all(splits):
        notes.append("divided as the folders of the images are")
        rows = {split: np.flatnonzero(np.array(splits) == split) for split in (TRAIN, VAL, TEST)}
        if not len(rows[VAL]):
            rows[VAL], rows[TEST] = rows[TEST], rows[VAL]
        return {split: replace(whole, rows=each) for split, each in rows.items() if len(each)}
    boxes = np.flatnonzero(~table.crowd)
    counts = np.zeros((num_images, len(table.category_names)), dtype=np.int64)
    np.add.at(counts, (table.image_rows[boxes], table.category_rows[boxes]), 1)
    present = whole.present_rows()
    num_images = len(present)
    names = [table.file_names[row] for row in present.tolist()]
    part = assign(units_of(names), (1 - share, share), seed, counts[present])
    rows = {TRAIN: present[part == 0], VAL: present[part == 1]}
    if num_images > 1 and not len(rows[VAL]):  # a fifth of two images is none
        rows = {TRAIN: rows[TRAIN][1:], VAL: rows[TRAIN][:1]}
    if num_images < 2:
        notes.append("there is only one image: training and test use it, so the test figures mean nothing")
        rows[VAL] = rows[TRAIN]
    else:
        notes.append(
            f"split at random (seed {seed}), with the same share of each class: {len(rows[TRAIN])} images to train on, "
            f"{len(rows[VAL])} to test on"
        )
    return {split: replace(whole, rows=each) for split, each in rows.items()}


def _all_class_names(tables: Iterable[AnnotationTable]) -> list[str]:
    """The names of the first table, then those that only others have."""
    names: dict[str, str] = {}
    for table in tables:
        for name in table.category_names:
            names.setdefault(normal_name(name), name)
    return list(names.values())


def _are_named_exactly(each: _Read) -> bool:
    """Whether the file can be used as it is."""
    images = ImageNames(each.source.img_dir)
    return all(name in images for name in each.table.file_names)


def _coco(each: _Read, class_names: Sequence[str]) -> dict[str, Any]:
    """The COCO file of a set: its images that are there, under the names that they have."""
    table = each.table
    images = ImageNames(each.source.img_dir)
    id_of = {normal_name(name): number for number, name in enumerate(class_names, start=1)}
    category_ids = [id_of[normal_name(name)] for name in table.category_names]
    rows = range(len(table.file_names)) if each.rows is None else each.rows.tolist()
    names = {row: name for row in rows if (name := _in_folder(table.file_names[row], images)) is not None}
    sizes = table.sizes.tolist()
    listed_images = []
    for row, name in names.items():
        image = {"id": table.image_ids[row], "file_name": name}
        if sizes[row][0]:
            image |= {"height": sizes[row][0], "width": sizes[row][1]}
        listed_images.append(image)
    annotations = [
        {
            "id": number,
            "image_id": table.image_ids[row],
            "category_id": category_ids[category],
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
        }
        for number, (row, category, box, area, crowd) in enumerate(
            zip(
                table.image_rows.tolist(),
                table.category_rows.tolist(),
                table.boxes_xywh.tolist(),
                table.areas.tolist(),
                table.crowd.tolist(),
                strict=True,
            ),
            start=1,
        )
        if row in names
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names, start=1)]
    return {"images": listed_images, "annotations": annotations, "categories": categories}
