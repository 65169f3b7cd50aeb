"""Data sets by name: the built-in ones and those declared in `DATASETS.CATALOG`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError, shown
from engine.files import expanded
from engine.spelling import did_you_mean


def _builtin() -> dict[str, dict[str, str]]:
    """The names of the reference; paths are relative to `DATASETS.ROOT`."""
    coco, cityscapes = "coco/annotations", "cityscapes/annotations"
    paths = {
        "coco_2017_train": ("coco/train2017", f"{coco}/instances_train2017.json"),
        "coco_2017_val": ("coco/val2017", f"{coco}/instances_val2017.json"),
        "coco_2017_test_dev": ("coco/test2017", f"{coco}/image_info_test-dev2017.json"),
    }
    # Minival and valminusminival are parts of val: they have annotation files of their own, but share its images.
    for split, folder in {"train": "train", "val": "val", "minival": "val", "valminusminival": "val"}.items():
        paths[f"coco_2014_{split}"] = (f"coco/{folder}2014", f"{coco}/instances_{split}2014.json")
        paths[f"keypoints_coco_2014_{split}"] = (f"coco/{folder}2014", f"{coco}/person_keypoints_{split}2014.json")
    for year, split in ((2007, "train"), (2007, "val"), (2007, "test"), (2012, "train"), (2012, "val")):
        voc = f"voc/VOC{year}"
        paths[f"voc_{year}_{split}_cocostyle"] = (f"{voc}/JPEGImages", f"{voc}/Annotations/pascal_{split}{year}.json")
    for split in ("train", "val", "test"):
        ann_file = f"{cityscapes}/instancesonly_filtered_gtFine_{split}.json"
        paths[f"cityscapes_fine_instanceonly_seg_{split}_cocostyle"] = ("cityscapes/images", ann_file)
    return {name: {"img_dir": img_dir, "ann_file": ann_file} for name, (img_dir, ann_file) in paths.items()}


BUILTIN: dict[str, dict[str, str]] = _builtin()


@dataclass(frozen=True)
class DatasetPaths:
    """Paths of one data set, which exist, and how they are read.

    Attributes:
        name: for messages.
        img_dir: the folder of its images.
        ann_file: a file, or a folder where the format has a file for each image.
        type: a name in `dataset.DATASET_TYPES`.
        repeat: how often each image is used in an epoch on average.
        format: a name in `annotations.FORMATS`; "" to recognise it.
        unlisted_are_empty: images that the annotations do not name have no boxes.
    """

    name: str
    img_dir: Path
    ann_file: Path
    type: str
    repeat: float = 1.0
    format: str = ""
    unlisted_are_empty: bool = False


def resolve(name: str, root: str | Path, catalog: Mapping[str, Mapping[str, str]]) -> DatasetPaths:
    """Find a data set by name; entries of `catalog` (`DATASETS.CATALOG`) override the built-in ones.

    Relative paths are relative to `root` (`DATASETS.ROOT`).

    Raises:
        InputError: the name is unknown, its entry is incomplete, or a file or folder is missing.
    """
    known = {**BUILTIN, **catalog}
    if name not in known:
        declare = f"DATASETS.CATALOG: {{{name}: {{img_dir: FOLDER, ann_file: FILE.json}}}}"
        hint = did_you_mean(name, known, at_most=3)
        raise InputError(f"unknown data set {shown(name)}{hint} (declare a new one with {declare})")
    entry = known[name]
    # A configuration that is not frozen yet has not been checked.
    if not isinstance(entry, Mapping):
        raise InputError(f"DATASETS.CATALOG.{name} must be a mapping {{img_dir: FOLDER, ann_file: FILE.json}}")
    for field in ("img_dir", "ann_file"):
        if not isinstance(entry.get(field), str) or not entry[field]:
            raise InputError(f"DATASETS.CATALOG.{name} lacks {field}; write {{img_dir: FOLDER, ann_file: FILE.json}}")
    img_dir, ann_file = (Path(expanded(root), expanded(entry[field])) for field in ("img_dir", "ann_file"))
    advice = f"put it there, or set DATASETS.ROOT (now '{root}') or DATASETS.CATALOG.{name}"
    # Unlike those of Path, these functions take names that no file can have.
    if not os.path.isfile(ann_file) and not os.path.isdir(ann_file):
        raise InputError(f"data set {shown(name)}: no annotation file {ann_file}; {advice}")
    if not os.path.isdir(img_dir):
        raise InputError(f"data set {shown(name)}: no image folder {img_dir}; {advice}")
    return DatasetPaths(
        name,
        img_dir,
        ann_file,
        type=entry.get("type", "CocoDataset"),
        repeat=entry.get("repeat", 1.0),
        format=entry.get("format", ""),
        unlisted_are_empty=entry.get("unlisted_are_empty", False),
    )
