"""cfg -> cleaned copies of its annotation files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from engine.assembly.doctor import Checkup, silent
from engine.data import catalog
from engine.data.doctor.boxes import CORNERS, RELATIVE
from engine.data.doctor.fix import FileFacts, cleaned
from engine.data.formats.recognise import recognise
from engine.data.formats.values import whole_number
from engine.data.image_file import read_size
from engine.data.image_paths import find_file_names
from engine.errors import InputError
from engine.files import new_folder, read_json, write_json


def fix_data(cfg: CfgNode, checkup: Checkup, folder: Path) -> list[str]:
    """Write cleaned copies of the COCO files of all data sets of `cfg` into `folder`, and each change: `changes.json`.

    The originals are not touched. `folder` appears whole or not at all.

    Returns:
        What was done, in lines for the console.

    Raises:
        InputError: `folder` exists, or cannot be written.
    """
    names = list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.VAL, *cfg.DATASETS.TEST]))
    record: dict[str, Any] = {}
    with new_folder(folder) as made:
        lines = [_fix_one(cfg, checkup, name, made, record) for name in names]
        write_json(made / "changes.json", record)
    return [*lines, f"every change: {folder / 'changes.json'}"]


def _fix_one(cfg: CfgNode, checkup: Checkup, name: str, folder: Path, record: dict[str, Any]) -> str:
    try:
        paths = catalog.resolve(name, cfg.DATASETS.ROOT, cfg.DATASETS.CATALOG)
        if (paths.format or recognise(paths.ann_file)) != "coco":
            raise InputError("not a COCO file; convert it first")
        data, changes = cleaned(*_facts(checkup, name, paths))
    except InputError as error:
        record[name] = {"not_fixed": str(error)}
        return f"{name}: not fixed: {error}"
    output = f"{name}.json".replace("/", "_")
    try:
        write_json(folder / output, data)
    except (ValueError, RecursionError):  # outside the lists that are cleaned
        record[name] = {"not_fixed": "it holds NaN, infinities or lists nested too deeply"}
        return f"{name}: not fixed: {record[name]['not_fixed']}"
    record[name] = {"from": str(paths.ann_file), "to": output, "changes": [each.record() for each in changes]}
    counts = Counter(f"{each.code} {'removed' if each.text.startswith('removed') else 'corrected'}" for each in changes)
    words = ", ".join(f"{count} {what}" for what, count in counts.items())
    return f"{name}: {output}: {words or 'nothing to change'}"


def _facts(checkup: Checkup, name: str, paths: catalog.DatasetPaths) -> tuple[Any, FileFacts]:
    """The content of an annotation file, and what its image files are."""
    data = read_json(paths.ann_file)
    images = data.get("images", []) if isinstance(data, dict) else []
    if not isinstance(images, list):
        return data, FileFacts({}, {})
    stated = {
        row["file_name"]: (whole_number(row.get("height")), whole_number(row.get("width")))
        for row in images
        if isinstance(row, dict) and isinstance(row.get("file_name"), str)
    }
    with silent():  # the check has said it
        found = find_file_names(name, paths.img_dir, list(stated))
    sizes, unreadable = {}, {}
    for (written, size), actual in zip(stated.items(), found, strict=True):
        try:
            sizes[written] = read_size(paths.img_dir / actual, size if all(size) else None)
        except InputError as error:
            unreadable[written] = str(error)
    unreadable |= checkup.unreadable.get(name, {})
    codes = {each.code for each in checkup.findings if each.dataset == name and each.severity == "error"}
    form = "relative" if RELATIVE.name in codes else "corners" if CORNERS.name in codes else ""
    return data, FileFacts(sizes, unreadable, form)
