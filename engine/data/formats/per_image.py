"""What writers of formats have in common: the boxes of an image, and the name of its own file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from engine.data.annotations import AnnotationTable, group_by_image
from engine.data.formats.class_list import FILES
from engine.data.formats.corners import Box
from engine.errors import InputError, shown


@dataclass(frozen=True)
class ImageBoxes:
    """An image and its boxes in the order of the table.

    Attributes:
        file_name: relative to the folder of the images.
        size: (height, width), zeros where it is not known.
        boxes: (class, x y width height, whether it is an ignore region).
    """

    file_name: str
    size: tuple[int, int]
    boxes: list[tuple[str, Box, bool]]


def images_of(table: AnnotationTable) -> Iterator[ImageBoxes]:
    """The images of a table with their boxes."""
    order, offsets = group_by_image(table.image_rows, len(table.image_ids))
    for row, file_name in enumerate(table.file_names):
        rows = order[offsets[row] : offsets[row + 1]]
        names = [table.category_names[category] for category in table.category_rows[rows].tolist()]
        boxes = [tuple(box) for box in table.boxes_xywh[rows].tolist()]
        crowd = table.crowd[rows].tolist()
        height, width = table.sizes[row].tolist()
        yield ImageBoxes(file_name, (height, width), list(zip(names, boxes, crowd, strict=True)))


def files_of_images(table: AnnotationTable, suffix: str) -> list[str]:
    """The name of the file that holds the boxes of each image: its own with another suffix.

    Raises:
        InputError: two images would have the same, one would be taken for the list of classes, or the image lies
            outside the folder of images.
    """
    taken: dict[str, str] = {}
    names = []
    for file_name in table.file_names:
        check_inside(file_name)
        name = os.path.splitext(file_name)[0] + suffix
        other = taken.setdefault(name.lower(), file_name)  # some file systems ignore case
        if other != file_name:
            raise InputError(f"images {shown(other)} and {shown(file_name)} would both have {name}; rename one of them")
        if PurePosixPath(name).name.lower() in FILES:
            raise InputError(
                f"image {shown(file_name)} would have {name}, which is a list of classes; rename the image"
            )
        names.append(name)
    return names


def check_inside(file_name: str) -> None:
    """Raise an `InputError` if an image is not in the folder of the images, by its name."""
    if os.path.isabs(file_name) or ".." in file_name.replace("\\", "/").split("/"):
        raise InputError(f"image {shown(file_name)} lies outside the folder of images; name the folder above it")


def write_lines(path: Path, text: str) -> None:
    """Write a text file into a folder that is being made; the folders above it are made too.

    Raises:
        InputError: the text holds half a character, which UTF-8 cannot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(text.encode())
    except UnicodeEncodeError:
        raise InputError(f"{path.name}: a name has half a character; rename the image or class") from None
