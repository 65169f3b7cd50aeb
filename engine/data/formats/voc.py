"""Pascal VOC: an XML file for each image.

    <annotation><filename>a.jpg</filename><size><width>640</width><height>480</height></size>
      <object><name>hole</name><difficult>0</difficult>
        <bndbox><xmin>10</xmin><ymin>20</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>

A data set is a folder of them (with sub-folders), the folder above `Annotations`, one XML file, or a list of images
(`ImageSets/Main/train.txt`). Boxes are read as they are written, width = xmax - xmin. `difficult` makes an ignore
region. An image of the list without an XML file is one without boxes; images that neither a list nor an XML file
names are no part of the data set.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from engine.data.annotations import FORMATS, WRITERS, AnnotationTable
from engine.data.formats.class_list import class_list_text, find_class_list
from engine.data.formats.collector import Collector
from engine.data.formats.corners import Box, to_corners, to_xywh
from engine.data.formats.files_below import files_below
from engine.data.formats.image_names import ImageNames
from engine.data.formats.per_image import files_of_images, images_of, write_lines
from engine.data.formats.safe_xml import read_xml
from engine.data.formats.text_file import read_lines
from engine.data.formats.values import exact, flag, whole_number
from engine.data.image_file import IMAGE_SUFFIXES
from engine.errors import InputError, shown
from engine.log import warn_once
from engine.spelling import is_slip, normal_name

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NOT_IN_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_OF_OBJECT = ("name", "bndbox", "difficult", "pose", "truncated", "occluded")


@FORMATS.register("voc")
def read(ann_file: Path, img_dir: Path | None = None) -> AnnotationTable:
    """The annotations of a VOC folder, list or file, see above; `img_dir` tells which suffix an image has.

    Raises:
        InputError: there is no XML file, or one is faulty; names the file and the object.
    """
    folder, stems = _sources(ann_file)
    images = ImageNames(img_dir)
    found = Collector(ann_file, find_class_list(folder))
    notes: Counter[str] = Counter()
    for stem, path in stems:
        if path is None:
            found.add_image(images.of_stem(stem) or f"{stem}.jpg")
            notes["images of the list without an XML file, read as images without boxes"] += 1
            continue
        root = read_xml(path)
        if root.tag != "annotation":
            raise InputError(f"{path}: not a VOC file: its first element must be <annotation>, not <{root.tag}>")
        _add(root, path, _file_name(root, stem, images, path, notes), found, notes)
    for note, count in notes.items():
        warn_once(f"{ann_file}: {note}: {count}")
    return found.table()


@WRITERS.register("voc")
def write(table: AnnotationTable, folder: Path) -> tuple[str, str]:
    """`Annotations/a.xml` for `JPEGImages/a.jpg`, and `Annotations/classes.txt`; ignore regions are `difficult`.

    Raises:
        InputError: the files of two images would have the same name, or a name has a character that XML cannot hold.
    """
    for name, image in zip(files_of_images(table, ".xml"), images_of(table), strict=True):
        height, width = image.size
        objects = "".join(_object_text(*each) for each in image.boxes)
        base = _text(PurePosixPath(image.file_name).name)
        size = f"<width>{width}</width><height>{height}</height><depth>3</depth>"
        text = (
            f"<annotation>\n  <filename>{base}</filename>\n  <size>{size}</size>\n"
            f"  <segmented>0</segmented>\n{objects}</annotation>\n"
        )
        write_lines(folder / "Annotations" / name, text)
    if classes := class_list_text(table.category_names):
        write_lines(folder / "Annotations" / "classes.txt", classes)
    return "Annotations", "JPEGImages"


def _object_text(name: str, box: Box, crowd: bool) -> str:
    sides = "".join(f"<{side}>{text}</{side}>" for side, text in zip(_CORNERS, to_corners(box), strict=True))
    head = f"<name>{_text(name)}</name><pose>Unspecified</pose><truncated>0</truncated>"
    return f"  <object>{head}<difficult>{int(crowd)}</difficult><bndbox>{sides}</bndbox></object>\n"


def _text(name: str) -> str:
    if _NOT_IN_XML.search(name):
        raise InputError(f"{shown(name)} has a character that XML cannot hold; rename it")
    return escape(name, {"\r": "&#13;"})


def _sources(ann_file: Path) -> tuple[Path, list[tuple[str, Path | None]]]:
    """The folder of the XML files, and (path of the image without suffix, XML file) of each image."""
    if ann_file.suffix.lower() == ".xml":
        return ann_file.parent, [(ann_file.stem, ann_file)]
    if os.path.isdir(ann_file):
        inside = ann_file / "Annotations"
        folder = inside if inside.is_dir() else ann_file
        names = files_below(folder, (".xml",))
        if not names:
            raise InputError(f"{ann_file}: holds no XML files; name the folder that does")
        return folder, [(name[: -len(".xml")], folder / name) for name in names]
    folder = next((each / "Annotations" for each in ann_file.parents if (each / "Annotations").is_dir()), None)
    if folder is None:
        raise InputError(f"{ann_file}: a list of images needs a folder Annotations of XML files beside or above it")
    known = {name[: -len(".xml")]: folder / name for name in files_below(folder, (".xml",))}
    stems = [_stem_of_line(line) for line in read_lines(ann_file) if line]
    if not stems:
        raise InputError(f"{ann_file}: is empty; it must name an image on each line")
    paths = {stem: _of_tail(stem, known) for stem in stems}
    if not any(paths.values()):
        raise InputError(f"{ann_file}: {folder} has an XML file for none of its {len(stems)} lines")
    return folder, list(paths.items())


def _of_tail(stem: str, known: Mapping[str, Path]) -> Path | None:
    """The XML file of `JPEGImages/left/a`, which may be `left/a.xml` or `a.xml`."""
    parts = stem.split("/")
    return next((known[tail] for k in range(len(parts)) if (tail := "/".join(parts[k:])) in known), None)


def _stem_of_line(line: str) -> str:
    """The image that a line of a list names: `2008_000001`, `2008_000001 -1` (lists of one class), `left\\a.jpg`."""
    name, _, mark = line.rpartition(" ")
    line = (name.strip() if name and mark in ("-1", "0", "1") else line).replace("\\", "/").removeprefix("./")
    stem, suffix = os.path.splitext(line)
    return stem if suffix.lower() in (*IMAGE_SUFFIXES, ".gif", ".xml") else line


def _file_name(root: Element, stem: str, images: ImageNames, path: Path, notes: Counter[str]) -> str:
    """The image of an XML file: the one with its name, else the one that it states."""
    stated, base = root.findtext("filename") or "", stem.rpartition("/")[2]
    if os.path.splitext(stated)[0] != base:  # as other programs write it: a path, of either system
        stated = PureWindowsPath(stated.strip()).name
    if same := images.of_stem(stem):
        if stated and os.path.splitext(normal_name(stated))[0] != normal_name(base):
            notes["XML files whose <filename> is not the image with their own name, which is taken"] += 1
        return same
    if "\0" in stated or not stated:
        return f"{stem}.jpg"
    folder = stem.rpartition("/")[0]
    nested = f"{folder}/{stated}" if folder else stated
    if nested in images or stated not in images:
        return nested if os.path.splitext(stated)[1] else f"{nested}.jpg"
    return stated


def _add(root: Element, path: Path, file_name: str, found: Collector, notes: Counter[str]) -> None:
    height, width = (whole_number(root.findtext(f"size/{side}") or "") or 0 for side in ("height", "width"))
    is_size = 0 < height < 2**31 and 0 < width < 2**31
    found.add_image(file_name, (height, width) if is_size else (0, 0), path)
    for number, element in enumerate(root.findall("object"), start=1):
        where = f"{path}: object {number}"
        name = normal_name(element.findtext("name") or "")
        if not name:
            raise InputError(f"{where}: has no <name>{_slip(element, 'name')}")
        where += f" ({shown(name)})"
        if element.find("bndbox") is None:
            raise InputError(f"{where}: has no <bndbox>{_slip(element, 'bndbox')}")
        corners = [_corner(element.find("bndbox"), side, where) for side in _CORNERS]
        box = to_xywh(corners)
        if box is None:
            raise InputError(f"{where}: its box is too large for a number; correct it")
        difficult = flag(element.findtext("difficult"))
        if difficult is None:
            raise InputError(f"{where}: <difficult> must be 0 or 1, not {shown(element.findtext('difficult'))}")
        found.add_box(file_name, name, box, difficult)
        for slip in _slips(element):
            notes[f"objects have <{slip}>, which is not read; did you mean <difficult>?"] += 1


def _corner(bndbox: Element, side: str, where: str) -> Decimal:
    text = bndbox.findtext(side)
    value = exact(text) if text is not None else None
    if value is None:
        stated = f"must be a number, not {shown(text)}" if text is not None else f"is missing{_slip(bndbox, side)}"
        raise InputError(f"{where}: <{side}> of <bndbox> {stated}")
    return value


def _slip(element: Element, meant: str) -> str:
    slips = [each.tag for each in element if each.tag not in (*_OF_OBJECT, *_CORNERS) and is_slip(each.tag, meant)]
    return f"; did you mean <{slips[0]}>? Rename it" if slips else ""


def _slips(element: Element) -> Iterator[str]:
    if element.find("difficult") is None:
        yield from (each.tag for each in element if each.tag not in _OF_OBJECT and is_slip(each.tag, "difficult"))
