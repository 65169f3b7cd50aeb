"""Boxes against their images: without area, outside, relative, corner coordinates, too small, too slender.

Shapes: M boxes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.data.doctor.case import CHECKS, Case
from engine.data.doctor.examined import MANY, ROUNDING, Boxes, ExaminedSet
from engine.data.doctor.findings import Finding, declare
from engine.data.sizes import size_faults

_NEARLY_ALL = 0.9  # of the boxes: a few odd ones hide no mistake
_TINY = 8  # pixels after resizing: the side of a cell of the finest level, stride 8
_SLENDER = 20  # long side / short side; COCO's 99.9th percentile is below it
_WHOLE = 0.98  # of both sides of an image
_SHARE = 0.5  # of the boxes, from which a note becomes a warning

NO_AREA = declare(
    "BOX_NO_AREA",
    "warning",
    "The width or height of a box is zero or negative. The box is dropped.",
    "Remove these boxes, or write `bbox` as [x, y, width, height].",
)
OUTSIDE = declare(
    "BOX_OUTSIDE",
    "warning",
    "A box lies wholly outside its image. It is dropped.",
    "Remove these boxes; if there are many, look whether the images were cropped or resized after labelling.",
)
REACHES_OUT = declare(
    "BOX_REACHES_OUT",
    "warning",
    "A box reaches more than a pixel beyond its image. It is clipped.",
    "Clip these boxes; if there are many, look at them: the images may have been resized after labelling.",
)
LARGER = declare(
    "BOX_LARGER_THAN_IMAGE",
    "warning",
    "A box is wider or higher than its image.",
    "Look whether the box belongs to another image or size; correct it.",
)
UNDER_A_PIXEL = declare(
    "BOX_UNDER_A_PIXEL",
    "warning",
    "After resizing, a side of the box is shorter than a pixel. It teaches little.",
    "Train at a larger size or on tiles (TILING), or remove these boxes.",
)
TINY = declare(
    "BOX_TINY",
    "note",
    f"After resizing, the square root of a box's area is below {_TINY} pixels. A warning if half of the boxes are.",
    "Raise INPUT.MIN_SIZE_TRAIN and MAX_SIZE_TRAIN, or train on tiles (TILING).",
)
SLENDER = declare(
    "BOX_SLENDER",
    "note",
    f"A box is more than {_SLENDER} times as long as wide. A warning if half of the boxes are.",
    "Look at them; if they are right, add such ASPECT_RATIOS to the anchors (tools/analyze_anchors.py suggests some).",
)
WHOLE = declare(
    "BOX_WHOLE_IMAGE",
    "note",
    "A box covers its whole image. A warning if half of the boxes do.",
    "Look at them: labels of whole images (classification) are not boxes of objects.",
)
RELATIVE = declare(
    "BOX_RELATIVE",
    "warning",
    "The numbers of a box lie between 0 and 1. An error if those of nearly all boxes do: they are relative.",
    "Multiply the boxes by the width and height of their image.",
)
PERCENT = declare(
    "BOX_PERCENT",
    "warning",
    "All boxes lie within the first 100 pixels of much larger images. They may be percentages.",
    "Multiply the boxes by the width and height of their image, divided by 100.",
)
CORNERS = declare(
    "BOX_CORNERS",
    "error",
    "Boxes reach far beyond most images, but fit as [x1, y1, x2, y2].",
    "Write `bbox` as [x, y, width, height]: subtract x1 from x2 and y1 from y2.",
)
FAR_OUT = declare(
    "BOX_FAR_OUT",
    "warning",
    "Most images have a box that reaches far beyond them.",
    "Look whether `bbox` is [x, y, width, height] in pixels of these images.",
)
LOST = declare(
    "BOX_LOST",
    "warning",
    "Half of the boxes or more are dropped, having no area or lying outside.",
    "The message says the likely reason; correct the boxes.",
)
ALL_EQUAL = declare(
    "BOX_ALL_EQUAL",
    "warning",
    "Nearly all boxes of many images have the same coordinates.",
    "These look like placeholders: label the images.",
)
AREA = declare(
    "AREA_WRONG",
    "note",
    "`area` is larger than its box or not positive. Metrics by size use `area`; training does not.",
    "Remove `area`, or correct it.",
)


@CHECKS.register("boxes")
def check_boxes(case: Case) -> Iterator[Finding]:
    """Each data set's boxes against its images."""
    for examined in case.datasets:
        yield from _dropped(examined)
        yield from _after_resizing(examined)
        yield from _in_another_form(examined)
        yield from _odd(examined)


def _dropped(examined: ExaminedSet) -> Iterator[Finding]:
    boxes, total, name = examined.boxes, len(examined.boxes), examined.name
    beyond = np.maximum(-boxes.corners, boxes.far - boxes.sides).max(1, initial=0)  # (M,) pixels
    larger = boxes.trainable & boxes.is_known & (boxes.extents > boxes.sides + ROUNDING).any(1)
    for code, which, badness, text in (
        (NO_AREA, ~boxes.has_area, None, "have no area and are dropped"),
        (OUTSIDE, boxes.has_area & boxes.is_outside, beyond, "lie outside their image and are dropped"),
        (REACHES_OUT, boxes.trainable & boxes.reaches_outside, beyond, "reach beyond their image and are clipped"),
        (LARGER, larger, beyond, "are larger than their image"),
    ):
        if count := int(which.sum()):
            examples = examined.some_boxes(which, badness)
            yield code.finding(f"{count} of {total} boxes {text}", count, name, examples)


def _after_resizing(examined: ExaminedSet) -> Iterator[Finding]:
    boxes, total, name = examined.boxes, len(examined.boxes), examined.name
    scales = examined.scales[boxes.images]  # (M,)
    under = under_a_pixel(examined)
    if count := int(under.sum()):
        message = f"{count} of {total} boxes are narrower than a pixel after resizing"
        yield UNDER_A_PIXEL.finding(message, count, name, examined.some_boxes(under, -boxes.extents.min(1, initial=0)))
    size = np.sqrt(np.abs(boxes.extents).prod(1)) * scales
    short, long = boxes.extents.min(1, initial=np.inf), boxes.extents.max(1, initial=0)
    slender = boxes.trainable & (long > _SLENDER * short)
    whole = boxes.trainable & boxes.is_known & (boxes.extents >= _WHOLE * boxes.sides).all(1)
    tiny = boxes.trainable & (size < _TINY)
    for code, which, badness, text in (
        (TINY, tiny, -size, f"are smaller than {_TINY} x {_TINY} pixels after resizing"),
        (SLENDER, slender, long / np.maximum(short, 1e-9), f"are more than {_SLENDER} times as long as wide"),
        (WHOLE, whole, None, "cover their whole image"),
    ):
        if count := int(which.sum()):
            severity = "warning" if total >= MANY and count >= _SHARE * total else ""
            yield code.finding(
                f"{count} of {total} boxes {text}", count, name, examined.some_boxes(which, badness), severity
            )


def under_a_pixel(examined: ExaminedSet) -> np.ndarray:
    """(M,) bool: boxes with a side of less than a pixel after resizing."""
    boxes = examined.boxes
    return boxes.trainable & (boxes.extents < 1 / examined.scales[boxes.images, None]).any(1)


def _in_another_form(examined: ExaminedSet) -> Iterator[Finding]:
    boxes, total, name = examined.boxes, len(examined.boxes), examined.name
    relative, with_area = int(boxes.are_relative.sum()), int(boxes.has_area.sum())
    if relative and relative >= _NEARLY_ALL * with_area:
        message = (
            f"{relative} of {with_area} boxes lie between 0 and 1: they are relative to the size of the image; bbox "
            "must be [x, y, width, height] in pixels: multiply by the width and height of the image"
        )
        yield RELATIVE.finding(message, relative, name, examined.some_boxes(boxes.are_relative), "error")
    elif relative:
        message = f"{relative} of {total} boxes lie between 0 and 1, as if they were relative to the image"
        yield RELATIVE.finding(message, relative, name, examined.some_boxes(boxes.are_relative))
    if boxes.look_like_percentages():
        message = "no box reaches beyond 100 pixels in images of 200 and more: are they percentages?"
        yield PERCENT.finding(message, total, name, examined.some_boxes(boxes.has_area))
    share_far = boxes.share_reaching_far()
    are_corners = False
    if total and share_far > 0.5:
        fits = boxes.fit_as_corners()
        if are_corners := int(fits.sum()) >= _NEARLY_ALL * total:
            message = (
                f"most images have boxes that reach far beyond them, but {int(fits.sum())} of {total} fit as "
                "[x1, y1, x2, y2]: they are corner coordinates; bbox must be [x, y, width, height]: subtract x1 from "
                "x2 and y1 from y2"
            )
            examples = examined.some_boxes(fits & boxes.reaches_outside)
            yield CORNERS.finding(message, int(fits.sum()), name, examples)
    lost = ~boxes.trainable
    if total and lost.sum() >= total / 2:
        message = f"{lost.sum()} of {total} boxes are lost{_why_lost(examined)}"
        yield LOST.finding(message, lost.sum(), name, examined.some_boxes(lost))
    elif share_far > 0.5 and not are_corners:
        message = "most images have boxes that reach far beyond them; bbox must be [x, y, width, height] in pixels"
        examples = examined.some_boxes(boxes.reaches_outside)
        yield FAR_OUT.finding(message, boxes.reaches_outside.sum(), name, examples)


def _odd(examined: ExaminedSet) -> Iterator[Finding]:
    boxes, total, name = examined.boxes, len(examined.boxes), examined.name
    if total >= MANY and len(np.unique(boxes.images)) >= MANY / 2:
        rows = np.concatenate([boxes.corners, boxes.extents], axis=1)
        same = (rows == np.sort(rows, axis=0)[total // 2]).all(1)  # unlike a median, it adds no two numbers of 1e308
        if same.sum() >= _NEARLY_ALL * total:
            message = f"{same.sum()} of {total} boxes have the same coordinates in all images"
            yield ALL_EQUAL.finding(message, same.sum(), name, examined.some_boxes(same))
    wrong = boxes.trainable & ((boxes.areas <= 0) | (boxes.areas > boxes.extents.prod(1) * 1.1 + 2))
    if count := int(wrong.sum()):
        message = f"{count} of {total} boxes have an `area` that is not theirs"
        yield AREA.finding(message, count, name, examined.some_boxes(wrong))


def _why_lost(examined: ExaminedSet) -> str:
    boxes: Boxes = examined.boxes
    is_outside = boxes.has_area & boxes.is_outside
    if (~boxes.has_area).sum() > is_outside.sum():
        return ": their width or height is not positive; bbox must be [x, y, width, height]"
    if any("resized" in words for words in size_faults(examined.stated, examined.sizes)):
        return ": the images were resized after labelling; scale the boxes too, or use the original images"
    (x, y), (width, height) = boxes.far[is_outside].max(0), boxes.sides[is_outside].max(0)
    return (
        f": they reach to x {x:g}, y {y:g}, but their images end at {width:g}, {height:g}; were the images resized or "
        "cropped after labelling?"
    )
