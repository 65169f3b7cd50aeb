"""YOLO: a text file for each image, with a line `class x y width height` for each box, relative to the image.

x and y are the centre; the class counts from 0. A line may be a polygon instead (`class x1 y1 x2 y2 x3 y3 ...`), whose
box is taken. The names of the classes stand in `data.yaml` (`names`) or `classes.txt`. A data set is the folder of
these files, or `data.yaml`, or a list of image files (`train.txt`). The text file of `images/a.jpg` is
`labels/a.txt`, or `a.txt` beside it. An image without a text file has no boxes.

The sizes of the images are read from their headers, so the folder of the images is needed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import yaml

from engine.data.annotations import FORMATS, WRITERS, AnnotationTable
from engine.data.formats import txt
from engine.data.formats.class_list import FILES, ClassList, read_class_list
from engine.data.formats.collector import Collector
from engine.data.formats.corners import Box, from_relative, to_relative
from engine.data.formats.files_below import files_below
from engine.data.formats.image_names import ImageNames
from engine.data.formats.per_image import files_of_images, images_of, write_lines
from engine.data.formats.text_file import read_lines, read_text
from engine.data.formats.values import exact, has_commas_within_numbers, whole_number
from engine.data.sizes import measure_sizes
from engine.errors import InputError, shown
from engine.log import get_logger, warn_once
from engine.spelling import normal_name

logger = get_logger(__name__)

_YAML_SUFFIXES = (".yaml", ".yml")
_FLOORS = 2  # how many folders above the text files the names of the classes may lie
_FEWEST_OF_POLYGON = 6
_MOST_FRACTION = 2  # boxes may reach beyond their image, but not so far
_MAX_DEPTH = 20
_SPLITS = ("train", "val", "test")


@FORMATS.register("yolo")
def read(ann_file: Path, img_dir: Path | None = None) -> AnnotationTable:
    """The annotations of the images in `img_dir`, or in the list `ann_file`, see above.

    Raises:
        InputError: there is no folder of images, no text file belongs to its images, or one is faulty.
    """
    if img_dir is None:
        raise InputError(f"{ann_file}: YOLO's boxes are relative to the sizes of the images; say where the images are")
    classes, key_points = class_names(ann_file)
    pairs = _images_and_labels(ann_file, img_dir)
    if not any(label is not None for _, label in pairs):
        raise InputError(f"{ann_file}: has no text file for any of the {len(pairs)} images in {img_dir}")
    rows = {name: _rows(label, key_points) for name, label in pairs if label is not None}
    stated = np.zeros((len(pairs), 2), dtype=np.int32)
    sizes, unreadable = measure_sizes(lambda index: img_dir / pairs[index][0], stated)
    names = _names_by_number(classes)
    found = Collector(ann_file, ClassList(classes.names, None, classes.source) if classes else None)  # ids from 1
    for (name, label), size in zip(pairs, sizes.tolist(), strict=True):
        found.add_image(name, tuple(size))
        for number, class_number, numbers in rows.get(name, ()):
            where = f"{label}:{number}"
            if names is not None and class_number not in names:
                known = f"{classes.source}, which has {len(names)}"
                raise InputError(f"{where}: class {class_number} has no name in {known}; correct it")
            if not size[0]:
                continue  # the image itself cannot be read either
            box = _box(numbers, tuple(size))
            if box is None:
                raise InputError(f"{where}: its box is too large for a number; correct it")
            found.add_box(name, names[class_number] if names else str(class_number), box)
    _warn_of_pixels(rows, dict(pairs))
    num_empty = sum(not rows.get(name) for name, _ in pairs)
    logger.info("%s: %d of %d images have no text file or an empty one: no boxes", ann_file, num_empty, len(pairs))
    if len(unreadable):
        example = shown(pairs[unreadable[0]][0])
        warn_once(
            f"{ann_file}: {len(unreadable)} images cannot be read, so that their boxes are not known, such as {example}"
        )
    return found.table()


@WRITERS.register("yolo")
def write(table: AnnotationTable, folder: Path) -> tuple[str, str]:
    """`labels/a.txt` for `images/a.jpg`, and `data.yaml` with the names of the classes; ignore regions are left out.

    Numbers have as many digits as the boxes need to be read again to the last bit.

    Raises:
        InputError: the size of an image with boxes is not known, or the files of two images would have the same name.
    """
    names = dict(enumerate(table.category_names))
    content = {"path": ".", "train": "images", "val": "images", "nc": len(names), "names": names}
    write_lines(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6))
    number_of = {name: number for number, name in names.items()}
    for name, image in zip(files_of_images(table, ".txt"), images_of(table), strict=True):
        boxes = [(number_of[label], box) for label, box, crowd in image.boxes if not crowd]
        if boxes and not image.size[0]:
            raise InputError(
                f"image {shown(image.file_name)}: its size is not known, to which YOLO's boxes are relative"
            )
        lines = [f"{number} {' '.join(to_relative(box, image.size))}\n" for number, box in boxes]
        write_lines(folder / "labels" / name, "".join(lines))
    return "data.yaml", "images"


def read_yaml(path: Path) -> dict[str, object]:
    """The content of a `data.yaml`; every value is text, a list or a mapping, nothing is converted.

    Raises:
        InputError: it cannot be read, is not YAML, uses aliases or is no mapping.
    """
    text = read_text(path)
    try:
        depth = 0
        for event in yaml.parse(text, yaml.BaseLoader):  # the parser needs quadratic time for thousands of brackets
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{path}: has YAML aliases (*name), which are not read; write the values themselves")
            if depth > _MAX_DEPTH:
                raise InputError(f"{path}: lists or mappings are nested too deeply to be read; remove them")
        content = yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(
            f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or 'it cannot be read'}"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping with `names`, as YOLO's data.yaml is")
    return content


def splits(path: Path) -> dict[str, list[Path]]:
    """What `train`, `val` and `test` of a `data.yaml` name: folders of images or lists of them, those that exist.

    They are relative to `path` of the file, else to the file; `../train/images` of Roboflow, which means
    `train/images`, is read as such.
    """
    content = read_yaml(path)
    base = path.parent / str(content.get("path") or "")
    found: dict[str, list[Path]] = {}
    for split in _SPLITS:
        stated = content.get(split) or (content.get("valid") if split == "val" else None)
        for each in stated if isinstance(stated, list) else [stated]:
            if not isinstance(each, str) or not each:
                continue
            tried = (base / each, path.parent / each, path.parent / each.removeprefix("../"))
            existing = next((place for place in tried if os.path.exists(place)), None)
            if existing is not None:
                found.setdefault(split, []).append(existing)
    return found


def class_names(ann_file: Path) -> tuple[ClassList | None, bool]:
    """The names of the classes, from `ann_file` or what lies beside or above it, and whether lines have key points."""
    if ann_file.suffix.lower() in _YAML_SUFFIXES:
        return _names_of_yaml(ann_file)
    folder = ann_file if ann_file.is_dir() else ann_file.parent
    for place in (folder, *list(folder.absolute().parents)[:_FLOORS]):
        for path in sorted(each for suffix in _YAML_SUFFIXES for each in place.glob(f"*{suffix}")):
            if re.search(r"^names\s*:", read_text(path), re.MULTILINE):
                return _names_of_yaml(path)
        for name in FILES:
            if (place / name).is_file():
                return read_class_list(place / name), False
    warn_once(
        f"{ann_file}: no data.yaml or classes.txt with the names of the classes; they are called by their numbers"
    )
    return None, False


def _names_of_yaml(path: Path) -> tuple[ClassList, bool]:
    content = read_yaml(path)
    names = content.get("names")
    if isinstance(names, str) and (path.parent / names).is_file():
        return read_class_list(path.parent / names), "kpt_shape" in content
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise InputError(f"{path}: `names` must be a list of the names of the classes, or a mapping 0: NAME")
    numbers = {whole_number(key): value for key, value in names.items()}
    for number, name in numbers.items():
        if number is None or not isinstance(name, str) or not normal_name(name):
            raise InputError(f"{path}: `names` must give each number a name, not {shown(names)}")
    ordered = [normal_name(numbers[number]) for number in sorted(numbers)]
    if len(set(ordered)) < len(ordered):
        twice = next(name for name in ordered if ordered.count(name) > 1)
        raise InputError(f"{path}: `names` has {shown(twice)} twice; give each class its own name")
    return ClassList(ordered, sorted(numbers), str(path)), "kpt_shape" in content


def _images_and_labels(ann_file: Path, img_dir: Path) -> list[tuple[str, Path | None]]:
    """(name of the image in `img_dir`, its text file or None), by name."""
    images = ImageNames(img_dir)
    names: Sequence[str] = images.names
    if ann_file.is_file() and ann_file.suffix.lower() not in _YAML_SUFFIXES:
        listed = [line for line in read_lines(ann_file) if line]
        names = sorted({images.of_path(line.removeprefix("./"), ann_file.parent) for line in listed})
    if ann_file.is_dir():
        known = {name[: -len(".txt")]: ann_file / name for name in files_below(ann_file, (".txt",))}
        labels = _labels_below(ann_file, known, img_dir, names)
        _warn_of_others(ann_file, img_dir, labels)
        return list(zip(names, labels, strict=True))
    beside = ann_file.parent / "labels"
    return [(name, label_of(img_dir / name) or _text_file(beside, name)) for name in names]


def _labels_below(folder: Path, known: Mapping[str, Path], img_dir: Path, names: Sequence[str]) -> list[Path | None]:
    """The text file of each image: that with its path, else the only one with its name in any folder.

    Raises:
        InputError: several have its name, or several images would have the same one.
    """
    by_base: dict[str, list[Path]] = {}
    for stem, path in known.items():
        by_base.setdefault(stem.rpartition("/")[2], []).append(path)
    labels, image_of = [], {}
    for name in names:
        stem = os.path.splitext(name)[0]
        label, same_name = known.get(stem), by_base.get(stem.rpartition("/")[2], [])
        if label is None and same_name:
            beside = label_of(img_dir / name)  # labels/train/a.txt of images/train/a.jpg, where both splits have an a
            label = beside if beside in same_name else same_name[0] if len(same_name) == 1 else None
            if label is None:
                raise InputError(
                    f"{folder}: image {shown(name)} may have {same_name[0]} or {same_name[1]}; name the folder of the"
                    " text files that belong to it"
                )
            if (other := image_of.get(label, stem)) != stem:
                raise InputError(
                    f"{label}: is it of image {shown(other)} or {shown(stem)}? Put both files into equal folders"
                )
        if label is not None:
            image_of.setdefault(label, stem)
        labels.append(label)
    return labels


def _warn_of_others(folder: Path, img_dir: Path, labels: Sequence[Path | None]) -> None:
    """Warn of text files that belong to no image: they may be of another split, or their images are missing."""
    used = set(labels)
    others = [name for name in txt.annotation_files(folder) if folder / name not in used]
    if others:
        warn_once(
            f"{folder}: {len(others)} text files have no image in {img_dir}, such as {shown(others[0])}; not read"
        )


def _text_file(folder: Path, image: str) -> Path | None:
    return _existing(folder / f"{os.path.splitext(image)[0]}.txt")


def _existing(path: Path) -> Path | None:
    """The file, perhaps with its suffix in capitals."""
    return next((each for each in (path, path.with_suffix(".TXT")) if each.is_file()), None)


def label_of(image: Path) -> Path | None:
    """The text file of an image: the last folder `images` of its path is `labels`, or it lies beside the image."""
    parts, name = list(image.parts), f"{image.stem}.txt"
    candidates = [image.with_name(name)]
    if "images" in parts[:-1]:
        at = len(parts) - 2 - parts[-2::-1].index("images")
        candidates.insert(0, Path(*parts[:at], "labels", *parts[at + 1 : -1], name))
    candidates += [image.parent.parent / "labels" / name, image.parent.parent / "labels" / image.parent.name / name]
    return next((found for each in candidates if (found := _existing(each))), None)


def _rows(path: Path, has_key_points: bool) -> list[tuple[int, int, list[Decimal]]]:
    """(line, class, the other numbers) of each row of a text file."""
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        words = line.replace(",", " ").split()
        if not words:
            continue
        class_number, numbers = whole_number(words[0]), [exact(word) for word in words[1:]]
        if len(line.split()) == 5 and has_commas_within_numbers(line.split()):
            raise InputError(f"{path}:{number}: has commas within numbers; write 0.5 for 0,5: {shown(line)}")
        if class_number is None or class_number < 0 or None in numbers:
            raise InputError(f"{path}:{number}: must be numbers: class x y width height, not {shown(line)}")
        if has_key_points:
            numbers = numbers[:4]
        is_polygon = len(numbers) >= _FEWEST_OF_POLYGON and len(numbers) % 2 == 0
        if len(numbers) != 4 and not is_polygon:
            why = "; a sixth value is a score of a detection, not an annotation" if len(numbers) == 5 else ""
            raise InputError(
                f"{path}:{number}: must be class x y width height, or a polygon, not {len(words)} values{why}"
            )
        rows.append((number, class_number, numbers))
    return rows


def _warn_of_pixels(
    rows: Mapping[str, list[tuple[int, int, list[Decimal]]]], label_of_image: Mapping[str, Path]
) -> None:
    """Warn of boxes whose numbers are far above 1, which are most likely pixels."""
    found = [
        (name, number) for name, each in rows.items() for number, _, values in each if max(values) > _MOST_FRACTION
    ]
    if found:
        name, number = found[0]
        warn_once(
            f"{label_of_image[name]}:{number}: has numbers above {_MOST_FRACTION}, as in {len(found)} boxes here;"
            " YOLO's numbers are fractions of the image, not pixels"
        )


def _names_by_number(classes: ClassList | None) -> dict[int, str] | None:
    if classes is None:
        return None
    return dict(zip(classes.numbers or range(len(classes.names)), classes.names, strict=True))


def _box(numbers: Sequence[Decimal], size: tuple[int, int]) -> Box | None:
    if len(numbers) == 4:
        return from_relative(numbers, size)
    left, right, top, bottom = (each(numbers[k::2]) for k in (0, 1) for each in (min, max))
    return from_relative([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top], size)
