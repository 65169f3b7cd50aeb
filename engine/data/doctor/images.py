"""The images of each data set as its annotation file and their headers tell them: sizes, files, what is empty.

Shapes: n images.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from engine.data.doctor.case import CHECKS, Case
from engine.data.doctor.examined import MANY, ExaminedSet
from engine.data.doctor.findings import MOST_EXAMPLES, Example, Finding, declare
from engine.data.sizes import size_faults

_MOSTLY_EMPTY, _NEARLY_EMPTY = 0.5, 0.9  # shares of images without boxes
_MANY_IGNORED = 0.2
_LONG = 6  # long side / short side
_ENLARGED, _REDUCED = 3.0, 0.25

UNREADABLE = declare(
    "FILE_UNREADABLE",
    "error",
    "An image file is missing, truncated or not an image. Training replaces it by another one, testing leaves it out.",
    "Copy or download these files again, or remove their images from the annotation file (`--fix` does).",
)
SIZE_WRONG = declare(
    "SIZE_WRONG",
    "warning",
    "An image file does not have the size that the annotations state. The size of the file is used.",
    "Nothing if the boxes fit the files; if the images were resized after labelling, scale the boxes. `--fix` corrects "
    "the stated sizes.",
)
REPEATED_FILE = declare(
    "FILE_REPEATED",
    "warning",
    "Several images have the same file. All of them are used.",
    "Merge them, unless the repeats are wanted.",
)
NO_BOXES = declare(
    "NO_BOXES",
    "warning",
    "A data set has no box to train on, or nothing to find. An error if no training set has one.",
    "The message says why.",
)
EMPTY = declare(
    "IMAGES_EMPTY",
    "note",
    "More than half of the images have no box. A warning if nine in ten have none.",
    "If they should have boxes, look for lost annotations; if they are really empty, set their share of each batch "
    "(DATALOADER.EMPTY_SHARE), or leave them out (DATALOADER.FILTER_EMPTY).",
)
IGNORED = declare(
    "IGNORED_MANY",
    "note",
    "More than a fifth of the annotations are ignore regions (`iscrowd`, `ignore`). A warning if half of them are.",
    "If they are objects, write iscrowd 0.",
)
LONG = declare(
    "IMAGE_LONG",
    "note",
    f"An image is more than {_LONG} times as long as wide: its short side becomes tiny after resizing.",
    "Cut such images into tiles (TILING).",
)
ENLARGED = declare(
    "IMAGE_ENLARGED",
    "note",
    f"Images are enlarged {_ENLARGED:g} times or more, which takes time and shows nothing new.",
    "Lower INPUT.MIN_SIZE_TRAIN and MIN_SIZE_TEST.",
)
REDUCED = declare(
    "IMAGE_REDUCED",
    "note",
    f"Images are reduced to {_REDUCED:g} of their size or less: small objects vanish.",
    "Raise INPUT.MIN_SIZE_TRAIN and MAX_SIZE_TRAIN, or use tiles (TILING).",
)
UNLISTED = declare(
    "FILE_UNLISTED",
    "note",
    "The image folder holds images that no data set lists.",
    "Look whether their annotations were lost.",
)


@CHECKS.register("images")
def check_images(case: Case) -> Iterator[Finding]:
    """What is wrong with the images of each data set."""
    for examined in case.datasets:
        yield from _files(examined)
        yield from _sizes(examined)
        yield from _contents(examined, case)
    for name, files in case.unlisted.items():
        message = f"{len(files)} images in its folder are in no annotation file"
        yield UNLISTED.finding(message, len(files), name, map(Example, files[:MOST_EXAMPLES]))


def _files(examined: ExaminedSet) -> Iterator[Finding]:
    if examined.num_unreadable:
        message = f"{examined.num_unreadable} image files are missing or cannot be read"
        yield UNREADABLE.finding(message, examined.num_unreadable, examined.name, _unreadable(examined))
    differs = wrong_sizes(examined)
    if words := size_faults(examined.stated, examined.sizes):
        is_resized = any("resized" in each for each in words)
        advice = "; boxes that belong to the stated size must be scaled with it" if is_resized else ""
        message = (
            f"{differs.sum()} image files do not have the stated size: {', '.join(words)}; the size of the file is "
            f"used{advice}"
        )
        yield SIZE_WRONG.finding(message, differs.sum(), examined.name, examined.images(differs))
    if repeats := repeated_files(examined):
        message = f"{len(repeats)} images have the file name of an earlier image"
        yield REPEATED_FILE.finding(message, len(repeats), examined.name, examined.images(np.array(repeats)))


def wrong_sizes(examined: ExaminedSet) -> np.ndarray:
    """(n,) bool: images whose file does not have the stated size."""
    return (examined.stated[:, 0] > 0) & (examined.stated != examined.sizes).any(1)


def repeated_files(examined: ExaminedSet) -> list[int]:
    """Indices of the images of a file that is listed before."""
    seen: set[str] = set()
    repeats = []
    for index, name in enumerate(examined.file_names()):
        if name in seen:
            repeats.append(index)
        seen.add(name)
    return repeats


def _unreadable(examined: ExaminedSet) -> Iterator[Example]:
    """The first of them; which they are is known only where the data set tells it."""
    tells = getattr(examined.dataset, "unreadable_images", None)
    return (examined.image(index) for index in islice(tells() if tells else (), MOST_EXAMPLES))


def _sizes(examined: ExaminedSet) -> Iterator[Finding]:
    known = examined.sizes[:, 0] > 0
    sides = np.maximum(examined.sizes, 1)
    ratios, scales = sides.max(1) / sides.min(1), examined.scales
    for code, which, text in (
        (LONG, known & (ratios > _LONG), f"are more than {_LONG} times as long as wide"),
        (ENLARGED, known & (scales >= _ENLARGED), f"are enlarged {_ENLARGED:g} times or more"),
        (REDUCED, known & (scales <= _REDUCED), f"are reduced to {_REDUCED:g} of their size or less"),
    ):
        if count := int(which.sum()):
            message = f"{count} of {examined.num_images} images {text}"
            yield code.finding(message, count, examined.name, examined.images(which))


def _contents(examined: ExaminedSet, case: Case) -> Iterator[Finding]:
    total, empty = examined.num_images, examined.boxes_per_image == 0
    if not examined.num_boxes:
        is_fatal = "train" in examined.roles and not any(each.num_boxes for each in case.having("train"))
        message = f"there is nothing to {'train on' if is_fatal else 'find'}: {why_nothing(examined)}"
        yield NO_BOXES.finding(message, 1, examined.name, severity="error" if is_fatal else "")
    elif total and empty.sum() > _MOSTLY_EMPTY * total:
        message = f"{empty.sum()} of {total} images have no box"
        severity = "warning" if total >= MANY and empty.sum() >= _NEARLY_EMPTY * total else ""
        yield EMPTY.finding(message, empty.sum(), examined.name, examined.images(empty), severity)
    ignored, annotations = examined.num_ignored, examined.num_annotations
    if examined.num_boxes and ignored > _MANY_IGNORED * annotations:
        severity = "warning" if annotations >= MANY and ignored >= annotations / 2 else ""
        message = f"{ignored} of {annotations} annotations are ignore regions"
        yield IGNORED.finding(message, ignored, examined.name, severity=severity)


def why_nothing(examined: ExaminedSet) -> str:
    """Why a data set has no box to train on."""
    if not examined.num_annotations:
        return (
            "there are no annotations; check whether `annotations` is empty, missing or misspelt in its file, and "
            "DATASETS.CLASSES"
        )
    if examined.num_ignored == examined.num_annotations:
        return f"all {examined.num_annotations} annotations are ignore regions (iscrowd 1); boxes need iscrowd 0"
    boxes = examined.boxes
    return (
        f"of {examined.num_annotations} annotations {examined.num_ignored} are ignore regions, "
        f"{(~boxes.has_area).sum()} have no area, {(boxes.has_area & boxes.is_outside).sum()} lie outside their image"
    )
