"""Plain text: a file for each image, with a line `x1 y1 x2 y2 class` for each box.

Blanks, tabs, commas or semicolons stand between the values; the class is the rest of the line, a name or a number. The
names of numbers may stand in `classes.txt` beside the files or above them. The first line may be a header. An image has
the name of its file, perhaps with `_test` or another usual tail more or less: `00041000_test.jpg` for `00041000.txt`.
An empty file is an image without boxes; images without a file are no part of the data set.
"""

from __future__ import annotations

import re
from pathlib import Path

from engine.data.annotations import FORMATS, WRITERS, AnnotationTable
from engine.data.formats.class_list import FILES, class_list_text, find_class_list
from engine.data.formats.collector import Collector
from engine.data.formats.corners import to_corners, to_xywh
from engine.data.formats.files_below import files_below
from engine.data.formats.image_names import ImageNames
from engine.data.formats.per_image import files_of_images, images_of, write_lines
from engine.data.formats.text_file import read_lines
from engine.data.formats.values import exact, has_commas_within_numbers, whole_number
from engine.errors import InputError, shown
from engine.log import warn_once
from engine.spelling import normal_name

_LISTS = frozenset(FILES)
_OTHERS = frozenset(("readme.txt", "license.txt", "train.txt", "val.txt", "valid.txt", "test.txt", "trainval.txt"))
"""Names, in lower case, of text files among annotations that usually are none."""

_SEPARATOR = r"(?:\s*[,;]\s*|\s+)"
_LINE = re.compile(
    rf"\(?([^\s,;]+){_SEPARATOR}([^\s,;]+){_SEPARATOR}([^\s,;]+){_SEPARATOR}([^\s,;]+?)\)?{_SEPARATOR}(.+)"
)


@FORMATS.register("txt")
def read(ann_file: Path, img_dir: Path | None = None) -> AnnotationTable:
    """The annotations of a folder of text files, or of one, see above; `img_dir` tells which suffix an image has.

    Raises:
        InputError: there is no text file, or a line is faulty.
    """
    is_folder = ann_file.is_dir()
    folder = ann_file if is_folder else ann_file.parent
    names = annotation_files(ann_file) if is_folder else [ann_file.name]
    if not names:
        raise InputError(f"{ann_file}: holds no text files (.txt) of annotations; name the folder that does")
    images = ImageNames(img_dir)
    found = Collector(ann_file, find_class_list(folder))
    num_guessed = 0
    for name in names:
        stem = name[: -len(".txt")]
        image = images.of_stem(stem)
        num_guessed += image is None
        file_name = image or f"{stem}.jpg"
        found.add_image(file_name, source=folder / name)
        for number, line in enumerate(read_lines(folder / name), start=1):
            if line and not (number == 1 and is_header(line)):
                _add_line(line, f"{folder / name}:{number}", file_name, found)
    if num_guessed and img_dir is not None:
        warn_once(f"{ann_file}: {num_guessed} of {len(names)} text files have no image of their name in {img_dir}")
    return found.table()


@WRITERS.register("txt")
def write(table: AnnotationTable, folder: Path) -> tuple[str, str]:
    """`annotations/a.txt` for `images/a.jpg`, with numbers of classes, which `annotations/classes.txt` names.

    Ignore regions are left out.

    Raises:
        InputError: the files of two images would have the same name, or the name of a class has several lines.
    """
    numbers = list(table.category_ids)
    if not all(isinstance(number, int) and 0 <= number < 10**9 for number in numbers):
        numbers = list(range(1, len(numbers) + 1))
    classes = class_list_text(table.category_names, numbers)
    if classes is None:
        raise InputError("a class whose name has several lines cannot be written to a text file; rename it")
    write_lines(folder / "annotations" / "classes.txt", classes)
    number_of = dict(zip(table.category_names, numbers, strict=True))
    for name, image in zip(files_of_images(table, ".txt"), images_of(table), strict=True):
        lines = [f"{' '.join(to_corners(box))} {number_of[label]}\n" for label, box, crowd in image.boxes if not crowd]
        write_lines(folder / "annotations" / name, "".join(lines))
    return "annotations", "images"


def annotation_files(folder: Path) -> list[str]:
    """Names relative to `folder` of the text files in and below it that may hold annotations."""
    found = []
    for name in files_below(folder, (".txt",)):
        base = name.rpartition("/")[2].lower()
        # An image may be called test.jpg, so what its file holds decides.
        if base not in _LISTS and (base not in _OTHERS or _has_boxes(folder / name)):
            found.append(name)
    return found


def _has_boxes(path: Path) -> bool:
    lines = [line for line in read_lines(path) if line]
    return not lines or any(_LINE.fullmatch(line) and exact(_LINE.fullmatch(line)[1]) is not None for line in lines[:2])


def is_header(line: str) -> bool:
    """Whether a line has words where numbers of a box would be, such as `x1 y1 x2 y2 class`."""
    words = re.split(_SEPARATOR, line)
    return line.startswith("#") or (len(words) >= 4 and all(exact(word) is None for word in words))


def _add_line(line: str, where: str, file_name: str, found: Collector) -> None:
    words = re.split(r"[\s;]+", line)
    if len(words) > 4 and has_commas_within_numbers(words[:4]):
        raise InputError(f"{where}: has commas within numbers; write 10.5 for 10,5, or all commas alike: {shown(line)}")
    match = _LINE.fullmatch(line)
    corners = [exact(match[k]) for k in range(1, 5)] if match else [None]
    class_name = normal_name(match[5]).strip(",; ") if match else ""
    if None in corners or not class_name:
        raise InputError(f"{where}: must be x1 y1 x2 y2 class, such as `10 20 30 40 hole`, not {shown(line)}")
    words = class_name.split()
    numbers = [exact(word) is not None for word in words]
    is_score = any(numbers[k] and whole_number(words[k]) is None for k in (0, -1))  # not the 2 of a class `type 2`
    if len(words) > 1 and (is_score or all(numbers[:2])):
        raise InputError(f"{where}: has more than x1 y1 x2 y2 class (a polygon or a score?): {shown(line)}")
    box = to_xywh(corners)
    if box is None:
        raise InputError(f"{where}: its box is too large for a number; correct it")
    found.add_box(file_name, class_name, box)
