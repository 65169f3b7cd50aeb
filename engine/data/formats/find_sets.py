"""The data sets that a folder holds, in any format: annotations, the images that they mean, and their splits."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.data.annotations import AnnotationTable
from engine.data.formats import recognise, txt, yolo
from engine.data.formats.class_list import FILES
from engine.data.formats.files_below import files_below
from engine.data.formats.image_names import ImageNames
from engine.data.image_file import IMAGE_SUFFIXES
from engine.errors import InputError
from engine.spelling import normal_name

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_SAMPLE = 200
"""Images of a data set that are sought in each folder of images."""
_SPLIT_WORDS = {"train": "train", "training": "train", "trainval": "trainval", "val": "val", "valid": "val",
                "validation": "val", "dev": "val", "test": "test", "testing": "test"}  # fmt: skip
_OTHER_JSON = re.compile(r"notes|bbox|metrics|thresholds|results?|captions.*|person_keypoints.*|stuff.*", re.IGNORECASE)


@dataclass(frozen=True)
class FoundSet:
    """A data set as an entry of `DATASETS.CATALOG` names it.

    Attributes:
        split: "train", "val", "test", "trainval", or "" where nothing tells.
        img_dir: the folder of its images.
        ann_file: the file or folder of its annotations.
        format: a name in `annotations.FORMATS`.
    """

    split: str
    img_dir: Path
    ann_file: Path
    format: str

    def read(self) -> AnnotationTable:
        """Its annotations.

        Raises:
            InputError: they are faulty.
        """
        return recognise.read_annotations(self.ann_file, self.img_dir, self.format)


def find_sets(place: Path, images: Sequence[Path] = ()) -> list[FoundSet]:
    """The data sets in a folder and the folders in it, by split and name; two of one split are alternatives.

    Args:
        place: the folder; or one file of annotations, of which one set is found.
        images: folders in which (and below which) the images are; by default they are sought in `place`, or beside or
            above a file.

    Raises:
        InputError: there are no images, no annotations that belong to them, or a file is faulty; one line says what was
            looked for.
    """
    is_file = os.path.isfile(place)
    if not is_file and not os.path.isdir(place):
        raise InputError(f"{place}: is no folder or file; name the folder that holds images and annotations")
    if is_file and place.suffix.lower() in ARCHIVES:
        raise InputError(f"{place}: is an archive; unpack it and name the folder")
    roots, image_dirs = _roots_of(place, images), {}
    for root in roots:
        image_dirs |= _image_dirs(root)
    if not image_dirs:
        raise InputError(f"{listed_paths(roots)}: holds no images ({', '.join(IMAGE_SUFFIXES)}) in it or below it")
    if is_file:
        return [_of_file(place, image_dirs)]
    for search in (_of_yaml, _of_json, _of_voc, _of_tables, _of_text):
        found = list(search(place, image_dirs))
        if found:
            found = _as_one(found)
            order = ["train", "trainval", "val", "test", ""]
            return sorted(found, key=lambda each: (order.index(each.split), str(each.ann_file)))
    hint = next((f"; unpack {name}, if they are in it" for name in files_below(place, ARCHIVES)), "")
    if others := files_below(place, (".xml", ".json")):
        hint = f"; {others[0]} is none of these, or of other images: export COCO or VOC from the program that wrote it"
    raise InputError(
        f"{place}: no annotations were found beside its images; looked for COCO, LabelMe or competition JSON,"
        f" VOC XML, YOLO or plain text, and CSV{hint}"
    )


def _roots_of(place: Path, images: Sequence[Path]) -> list[Path]:
    for each in images:
        if not os.path.isdir(each):
            raise InputError(f"{each}: is no folder of images")
    if len(images) > 1:  # one data set has one folder of images
        above = {os.path.dirname(os.path.realpath(each)) for each in images}
        if len(above) > 1:
            raise InputError(f"{listed_paths(images)}: are in different folders; name one that holds them all")
        return [Path(above.pop())]
    if images:
        return list(images)
    if os.path.isdir(place):
        return [place]
    beside = place.absolute().parent
    return [beside if files_below(beside, IMAGE_SUFFIXES) else beside.parent]


def _as_one(found: list[FoundSet]) -> list[FoundSet]:
    """Folders of annotations that each have their own folder of images, and no name of a split, are one data set."""
    kinds, splits = {each.format for each in found}, {each.split for each in found}
    places, image_dirs = [each.ann_file for each in found], [each.img_dir for each in found]
    are_apart = len(set(image_dirs)) == len(found) and not any(
        set(each.parents) & set(image_dirs) for each in image_dirs
    )
    has_lists = any((place / name).is_file() for place in places for name in FILES)
    if len(found) == 1 or len(kinds) > 1 or splits != {""} or not are_apart or has_lists:
        return found
    if not all(map(os.path.isdir, places)):
        return found
    above, images_above = (Path(os.path.commonpath(each)) for each in (places, image_dirs))
    return [FoundSet("", images_above, above, kinds.pop())]


def listed_paths(paths: Iterable[Path]) -> str:
    """Paths as a message lists them."""
    return ", ".join(map(str, paths))


def split_of(path: Path) -> str:
    """The split that the name of a file or of a folder above it tells, the nearest one first.

    Example:
        >>> split_of(Path("parts/annotations/instances_val2017.json")), split_of(Path("parts/a.json"))
        ('val', '')
    """
    for part in (path.stem if path.suffix else path.name, *list(path.parts)[-2::-1]):
        words = re.findall(r"[a-z]+", part.lower())
        if found := [_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS]:
            return found[-1]
    return ""


def _image_dirs(folder: Path) -> dict[Path, list[str]]:
    """Folders below (and with) `folder` that hold images -> names in them, relative, also of the folders below."""
    names = files_below(folder, IMAGE_SUFFIXES)
    dirs: dict[Path, list[str]] = {}
    for name in names:
        parts = name.split("/")
        for depth in range(len(parts)):
            dirs.setdefault(folder.joinpath(*parts[:depth]), []).append("/".join(parts[depth:]))
    return dirs


def _best_dir(wanted: Iterable[str], image_dirs: dict[Path, list[str]], near: Path, by_stem: bool) -> Path | None:
    """The folder that holds most of the `wanted` images.

    Of equals it is the one with most folder names in common with `near` (`images/train` for `labels/train`), then with
    the fewest images, then the innermost.
    """
    every = list(wanted)
    sample = random.Random(0).sample(every, min(len(every), _SAMPLE))  # the first ones may all be of one split
    best, best_rank = None, (0, 0, 0, 0)
    for place, names in image_dirs.items():
        images = ImageNames(place, names)
        count = sum(images.of_stem(each) is not None if by_stem else normal_name(each) in images for each in sample)
        rank = (count, len(set(place.parts) & set(near.parts)), -len(names), len(place.parts))
        if count and rank > best_rank:
            best, best_rank = place, rank
    return best


# ---------------------------------------------------------------- one function per kind of annotations


def _of_file(path: Path, image_dirs: dict[Path, list[str]]) -> FoundSet:
    kind = recognise.recognise(path)
    root = min(image_dirs, key=lambda each: len(each.parts))
    if kind == "yolo":
        return FoundSet("", root, path, kind)
    names = recognise.read_annotations(path, None, kind).file_names
    return FoundSet("", _best_dir(names, image_dirs, path, by_stem=False) or root, path, kind)


def _of_yaml(folder: Path, image_dirs: dict[Path, list[str]]) -> Iterator[FoundSet]:
    for name in files_below(folder, (".yaml", ".yml")):
        path = folder / name
        try:
            splits = yolo.splits(path) if "names" in yolo.read_yaml(path) else {}
        except InputError:  # a YAML file of something else
            continue
        for split, places in splits.items():
            for place in places:
                if place.is_dir():
                    yield FoundSet(split, place, path, "yolo")
                else:
                    yield FoundSet(split, folder, place, "yolo")


def _of_json(folder: Path, image_dirs: dict[Path, list[str]]) -> Iterator[FoundSet]:
    labelme: dict[Path, list[str]] = {}
    for name in files_below(folder, (".json",)):
        path = folder / name
        if _OTHER_JSON.fullmatch(path.stem):
            continue
        kind = recognise.recognise(path)
        if kind == "labelme":
            labelme.setdefault(path.parent, []).append(path.stem)
            continue
        try:
            file_names = recognise.read_annotations(path, None, kind).file_names
        except InputError:
            if kind == "coco" and not recognise.looks_like_coco(path):
                continue
            raise
        if img_dir := _best_dir(file_names, image_dirs, path, by_stem=False):
            yield FoundSet(split_of(path.relative_to(folder)), img_dir, path, kind)
    for place, stems in labelme.items():
        if not any(other in place.parents for other in labelme) and (
            img_dir := _best_dir(stems, image_dirs, place, by_stem=True)
        ):
            yield FoundSet(split_of(place.relative_to(folder)), img_dir, place, "labelme")


def _of_voc(folder: Path, image_dirs: dict[Path, list[str]]) -> Iterator[FoundSet]:
    by_place: dict[Path, list[str]] = {}
    for name in files_below(folder, (".xml",)):
        path = folder / name
        by_place.setdefault(path.parent, []).append(path.stem)
    for place, stems in by_place.items():
        if any(other in place.parents for other in by_place):
            continue  # read with the folder above it
        img_dir = _best_dir(stems, image_dirs, place, by_stem=True)
        if img_dir is None:
            continue
        lists = [each for each in sorted(place.parent.glob("ImageSets/Main/*.txt")) if each.stem in _SPLIT_WORDS]
        if place.name == "Annotations" and lists:
            is_split = {"train", "val"} <= {each.stem for each in lists}
            for each in lists:
                if is_split and each.stem == "trainval":
                    continue  # both together
                yield FoundSet(_SPLIT_WORDS[each.stem], img_dir, each, "voc")
        else:
            yield FoundSet(split_of(place.relative_to(folder)), img_dir, place, "voc")


def _of_tables(folder: Path, image_dirs: dict[Path, list[str]]) -> Iterator[FoundSet]:
    for name in files_below(folder, (".csv", ".tsv")):
        path = folder / name
        if path.name.lower() in FILES:
            continue
        file_names = recognise.read_annotations(path, None, "csv").file_names
        if img_dir := _best_dir(file_names, image_dirs, path, by_stem=False):
            yield FoundSet(split_of(path.relative_to(folder)), img_dir, path, "csv")


def _of_text(folder: Path, image_dirs: dict[Path, list[str]]) -> Iterator[FoundSet]:
    by_place: dict[Path, list[str]] = {}
    for name in txt.annotation_files(folder):
        path = folder / name
        by_place.setdefault(path.parent, []).append(path.stem)
    for place, stems in by_place.items():
        if any(other in place.parents for other in by_place):
            continue  # read with the folder above it
        if img_dir := _best_dir(stems, image_dirs, place, by_stem=True):
            kind = recognise.recognise(place)
            yield FoundSet(split_of(place.relative_to(folder)), img_dir, place, kind)
