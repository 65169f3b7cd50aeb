"""CSV: a line for each box, `image,x1,y1,x2,y2,class`, in any order of columns that its header names.

Recognised headers (case and separators of words do not count):

    image     filename, file, image, image_name, path, ... ; relative to the folder of the images or to the CSV file
    corners   xmin, ymin, xmax, ymax or x1, y1, x2, y2 or left, top, right, bottom
    or sides  x, y, w, h (left, top, width, height); or one column bbox with [x, y, width, height]
    class     class, label, name, category, ...
    optional  width and height of the image; difficult, crowd or ignore (1: an ignore region)

Without a header the columns are `path,x1,y1,x2,y2,class`, as keras-retinanet has them. Values are separated by commas,
semicolons or tabs. A line with an empty box is an image without boxes; images without a line are no part of the data
set.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from engine.data.annotations import FORMATS, WRITERS, AnnotationTable
from engine.data.formats.class_list import class_list_text, find_class_list
from engine.data.formats.collector import Collector
from engine.data.formats.corners import to_corners, to_xywh
from engine.data.formats.image_names import ImageNames
from engine.data.formats.per_image import images_of, write_lines
from engine.data.formats.text_file import read_text
from engine.data.formats.values import exact, flag, whole_number
from engine.errors import InputError, shown
from engine.spelling import is_slip, normal_name

_DELIMITERS = (",", ";", "\t", "|")
_EXCEL = re.compile("sep=.\n", re.IGNORECASE)  # tells Excel the separator
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_WORDS = {
    "image": ("filename", "file", "image", "imagename", "img", "imgname", "imagepath", "imgpath", "filepath", "path",
              "imageid", "imagefile", "imagefilename"),
    "class": ("class", "label", "classname", "category", "categoryname", "labelname", "defectname", "defect", "name",
              "classid", "categoryid", "labelid", "objectname", "type"),
    "x1": ("xmin", "x1", "left", "minx", "x0", "bboxxmin", "bboxx1"),
    "y1": ("ymin", "y1", "top", "miny", "y0", "bboxymin", "bboxy1"),
    "x2": ("xmax", "x2", "right", "maxx", "bboxxmax", "bboxx2"),
    "y2": ("ymax", "y2", "bottom", "maxy", "bboxymax", "bboxy2"),
    "x": ("x", "bboxx", "boxx", "xleft"),
    "y": ("y", "bboxy", "boxy", "ytop"),
    "w": ("w", "bboxw", "boxw", "bboxwidth", "boxwidth"),
    "h": ("h", "bboxh", "boxh", "bboxheight", "boxheight"),
    "width": ("width",),
    "height": ("height",),
    "image width": ("imagewidth", "imgwidth", "imagew", "imgw"),
    "image height": ("imageheight", "imgheight", "imageh", "imgh"),
    "bbox": ("bbox", "box"),
    "ignore": ("difficult", "ignore", "iscrowd", "crowd", "isdifficult"),
}  # fmt: skip
_MEANING = {word: meaning for meaning, words in _WORDS.items() for word in words}
_HEADERLESS = ("image", "x1", "y1", "x2", "y2", "class")


@dataclass(frozen=True)
class _Columns:
    """Where a line holds what; the box as corners or as [x, y, width, height]."""

    image: int
    box: tuple[int, ...]  # one index for a column `bbox`
    is_corners: bool
    class_: int
    size: tuple[int, int] | None  # height, width
    ignore: int | None


@FORMATS.register("csv")
def read(ann_file: Path, img_dir: Path | None = None) -> AnnotationTable:
    """The annotations of a CSV file, see above.

    Raises:
        InputError: the file cannot be read, its columns are not recognised, or a line is faulty.
    """
    rows = list(_rows(ann_file))
    if not rows:
        raise InputError(f"{ann_file}: is empty; it must have a line image,x1,y1,x2,y2,class for each box")
    columns = _columns_of(rows[0][1], ann_file)
    if columns is None:
        columns = _Columns(0, (1, 2, 3, 4), True, 5, None, None)
    else:
        rows = rows[1:]
    images = ImageNames(img_dir)
    found = Collector(ann_file, find_class_list(ann_file.parent))
    for number, row in rows:
        _add_row(row, columns, f"{ann_file}:{number}", images, found)
    return found.table()


@WRITERS.register("csv")
def write(table: AnnotationTable, folder: Path) -> tuple[str, str]:
    """`annotations.csv` with a header, and `classes.txt`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", "ignore"])
    for image in images_of(table):
        height, width = image.size
        start = [image.file_name, width or "", height or ""]
        writer.writerows([*start, name, *to_corners(box), int(crowd)] for name, box, crowd in image.boxes)
        if not image.boxes:
            writer.writerow([*start, "", "", "", "", "", ""])
    write_lines(folder / "annotations.csv", text.getvalue())
    if classes := class_list_text(table.category_names):
        write_lines(folder / "classes.txt", classes)
    return "annotations.csv", "images"


def has_known_columns(first: Sequence[str], source: Path) -> bool:
    """Whether the first row of a file is a header that `read` knows, or a line of six values without a header."""
    try:
        return _columns_of(first, source) is not None or _is_headerless(first)
    except InputError:
        return False


def first_row(text: str) -> list[str]:
    """The first row of a CSV text that is not empty; [] if there is none."""
    return next((row for row in csv.reader(io.StringIO(text), delimiter=_delimiter(text)) if any(row)), [])


def _rows(ann_file: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, values) of each row that is not empty."""
    text = read_text(ann_file)
    if _EXCEL.match(text):
        text = "\n" + text.partition("\n")[2]
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    line = 1
    try:
        for row in reader:
            if delimiter != ",":  # where Excel writes 12,5 for 12.5 (much of Europe), it separates by semicolons
                row = [value.replace(",", ".") if _DECIMAL_COMMA.fullmatch(value) else value for value in row]
            if any(map(str.strip, row)):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{ann_file}:{reader.line_num}: not valid CSV: {error}; correct the line") from None


def _delimiter(text: str) -> str:
    """The one that the first line has most of."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return max(_DELIMITERS, key=first.count)


def _columns_of(header: Sequence[str], source: Path) -> _Columns | None:
    """The columns that a header names; None if the first row is none.

    Raises:
        InputError: it is a header, but something is missing in it.
    """
    if _is_headerless(header):
        return None
    keys = ["".join(filter(str.isalnum, word.lower())) for word in header]
    at: dict[str, int] = {}
    for index, key in enumerate(keys):
        if meaning := _MEANING.get(key):
            at.setdefault(meaning, index)
    if "image" not in at and "class" in at and keys[at["class"]] == "name":  # `name, x1, ..., class`
        at["image"] = at.pop("class")
        others = [k for k, key in enumerate(keys) if _MEANING.get(key) == "class" and k != at["image"]]
        at.update({"class": others[0]} if others else {})
    box, is_corners = _box_columns(at)
    missing = [what for what, is_there in (("image", "image" in at), ("class", "class" in at)) if not is_there]
    if box is None:
        missing.append("box (xmin, ymin, xmax, ymax or x, y, w, h)")
    if missing:
        raise InputError(f"{source}:1: the header has no column for: {', '.join(missing)}{_slips(keys, header)}")
    size = None
    if "image width" in at and "image height" in at:
        size = at["image height"], at["image width"]
    elif "width" in at and "height" in at and not {at["width"], at["height"]} & set(box):
        size = at["height"], at["width"]
    return _Columns(at["image"], box, is_corners, at["class"], size, at.get("ignore"))


def _is_headerless(row: Sequence[str]) -> bool:
    """`path,x1,y1,x2,y2,class`, of which all but the path may be empty."""
    if len(row) != len(_HEADERLESS) or not row[0]:
        return False
    return all(exact(value) is not None for value in row[1:5]) or not any(map(str.strip, row[1:]))


def _box_columns(at: Mapping[str, int]) -> tuple[tuple[int, ...] | None, bool]:
    """The columns of the box, and whether they are corners."""
    for names in (("x1", "y1", "x2", "y2"), ("x", "y", "x2", "y2")):
        if all(name in at for name in names):
            return tuple(at[name] for name in names), True
    for left, top in (("x", "y"), ("x1", "y1")):
        for width, height in (("w", "h"), ("width", "height")):
            if all(name in at for name in (left, top, width, height)):
                return (at[left], at[top], at[width], at[height]), False
    return ((at["bbox"],), False) if "bbox" in at else (None, False)


def _slips(keys: Sequence[str], header: Sequence[str]) -> str:
    for key, word in zip(keys, header, strict=True):
        meant = next((known for known in _MEANING if key not in _MEANING and is_slip(key, known)), None)
        if key and meant:
            return f"; did you mean {meant} by {shown(word)}?"
    return f"; it has {shown(list(header))}"


def _add_row(row: Sequence[str], columns: _Columns, where: str, images: ImageNames, found: Collector) -> None:
    needed = max(columns.image, columns.class_, *columns.box) + 1
    if len(row) < needed and any(row[k].strip() for k in columns.box if k < len(row)):
        raise InputError(f"{where}: has {len(row)} values, but needs {needed}; correct the line")
    row = [*row, *[""] * (needed - len(row))]
    if not row[columns.image].strip():
        raise InputError(f"{where}: names no image")
    if "\0" in row[columns.image]:
        raise InputError(f"{where}: the name of the image has a NUL character, which no file can have")
    size = (0, 0)
    if columns.size and len(row) > max(columns.size):
        height, width = (whole_number(row[k]) or 0 for k in columns.size)
        size = (height, width) if 0 < height < 2**31 and 0 < width < 2**31 else size
    file_name = images.of_path(row[columns.image], found.source.parent)
    found.add_image(file_name, size)
    texts = [row[k].strip() for k in columns.box]
    if not any(texts):
        return
    numbers = _numbers(texts)
    class_name = normal_name(row[columns.class_])
    if numbers is None:
        raise InputError(f"{where}: its box must be four numbers, not {shown(texts if len(texts) > 1 else texts[0])}")
    if not class_name:
        raise InputError(f"{where}: its box has no class")
    box = to_xywh(numbers) if columns.is_corners else tuple(map(float, numbers))
    if box is None:
        raise InputError(f"{where}: its box is too large for a number; correct it")
    is_ignored = (
        flag(row[columns.ignore].strip() or "0") if columns.ignore is not None and columns.ignore < len(row) else False
    )
    if is_ignored is None:
        raise InputError(f"{where}: must say 0 or 1 where it says {shown(row[columns.ignore])}")
    found.add_box(file_name, class_name, box, is_ignored)


def _numbers(texts: Sequence[str]) -> list[Decimal] | None:
    if len(texts) == 1:  # [x, y, width, height]
        try:
            texts = json.loads(texts[0], parse_float=str, parse_int=str)
        except (ValueError, RecursionError):
            return None
        if not isinstance(texts, list) or len(texts) != 4 or not all(isinstance(each, str) for each in texts):
            return None
    found = [exact(text) for text in texts]
    return None if None in found else found
