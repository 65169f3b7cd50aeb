"""Data sets by name: the built-in ones and those declared in `DATASETS.CATALOG`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError

DEFAULT_TYPE = "CocoDataset"


def _entry(img_dir: str, ann_file: str) -> dict[str, str]:
    return {"img_dir": img_dir, "ann_file": ann_file}


def _builtin() -> dict[str, dict[str, str]]:
    """The names of the reference; paths are relative to `DATASETS.ROOT`."""
    coco = "coco/annotations"
    entries = {
        "coco_2017_train": _entry("coco/train2017", f"{coco}/instances_train2017.json"),
        "coco_2017_val": _entry("coco/val2017", f"{coco}/instances_val2017.json"),
        "coco_2017_test_dev": _entry("coco/test2017", f"{coco}/image_info_test-dev2017.json"),
    }
    # Minival and valminusminival are parts of val: they have annotation files of their own, but share its images.
    images_2014 = {"train": "train", "val": "val", "minival": "val", "valminusminival": "val"}
    for split, folder in images_2014.items():
        img_dir = f"coco/{folder}2014"
        entries[f"coco_2014_{split}"] = _entry(img_dir, f"{coco}/instances_{split}2014.json")
        entries[f"keypoints_coco_2014_{split}"] = _entry(img_dir, f"{coco}/person_keypoints_{split}2014.json")
    for year, split in (
        (2007, "train"),
        (2007, "val"),
        (2007, "test"),
        (2012, "train"),
        (2012, "val"),
    ):
        root = f"voc/VOC{year}"
        entries[f"voc_{year}_{split}_cocostyle"] = _entry(
            f"{root}/JPEGImages", f"{root}/Annotations/pascal_{split}{year}.json"
        )
    for split in ("train", "val", "test"):
        entries[f"cityscapes_fine_instanceonly_seg_{split}_cocostyle"] = _entry(
            "cityscapes/images",
            f"cityscapes/annotations/instancesonly_filtered_gtFine_{split}.json",
        )
    return entries


BUILTIN: dict[str, dict[str, str]] = _builtin()


@dataclass(frozen=True)
class DatasetPaths:
    """Paths of one data set, which exist.

    Attributes:
        name: of the data set.
        img_dir: the folder of its images.
        ann_file: its annotation file.
        type: a name in `dataset.DATASET_TYPES`.
    """

    name: str
    img_dir: Path
    ann_file: Path
    type: str = DEFAULT_TYPE


def resolve(name: str, root: str | Path, catalog: Mapping[str, Mapping[str, str]] | None = None) -> DatasetPaths:
    """Find a data set by name; entries of `catalog` override the built-in ones.

    Args:
        name: of the data set.
        root: the folder that relative paths are relative to (`DATASETS.ROOT`).
        catalog: name -> {img_dir, ann_file, type}; the type may be missing (`DATASETS.CATALOG`).

    Raises:
        InputError: the name is unknown, its entry is incomplete, or a file or folder is missing.
    """
    known = {**BUILTIN, **(catalog or {})}
    if name not in known:
        raise InputError(_unknown_name(name, known))
    entry = known[name]
    if not isinstance(entry, Mapping):
        raise InputError(f"DATASETS.CATALOG.{name} must be a mapping {{img_dir: FOLDER, ann_file: FILE.json}}")
    for field in ("img_dir", "ann_file"):
        if not isinstance(entry.get(field), str) or not entry[field]:
            raise InputError(f"DATASETS.CATALOG.{name} lacks {field}; write {{img_dir: FOLDER, ann_file: FILE.json}}")
    base = Path(root).expanduser()
    img_dir = base / Path(entry["img_dir"]).expanduser()
    ann_file = base / Path(entry["ann_file"]).expanduser()
    advice = f"put it there, or set DATASETS.ROOT (now '{root}') or DATASETS.CATALOG.{name}"
    if not ann_file.is_file():
        raise InputError(f"data set '{name}': no annotation file {ann_file}; {advice}")
    if not img_dir.is_dir():
        raise InputError(f"data set '{name}': no image folder {img_dir}; {advice}")
    return DatasetPaths(name, img_dir, ann_file, entry.get("type", DEFAULT_TYPE))


def _unknown_name(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    declare = f"DATASETS.CATALOG: {{{name}: {{img_dir: FOLDER, ann_file: FILE.json}}}}"
    return f"unknown data set '{name}'{hint} (declare a new one with {declare})"
