"""Boxes, class names and scores on an image.

Lines and letters scale with the image, so that a picture looks the same at any size. Pillow draws the letters with a
TrueType font that has them (see `fonts.py`).

Shapes: D detections, M gt boxes, C channels, H W. Pictures are BGR uint8 (H, W, 3); they are drawn on images as the
reader returns them, see `pixels.as_picture`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from engine.errors import printable
from engine.structures import Detections, Targets
from engine.visualize.colors import RGB, class_color, text_color, to_bgr
from engine.visualize.fonts import Font, font_for
from engine.visualize.labels import Rectangle, place_labels
from engine.visualize.pixels import as_picture

IGNORED: RGB = (176, 176, 176)
DIGITS = "0123456789."
SMALLEST_FONT = 8
ELLIPSIS = ".."


@dataclass(frozen=True)
class Mark:
    """One box to draw; if there is no room for all labels, earlier marks get theirs first."""

    box: tuple[float, float, float, float]  # xyxy, continuous pixels
    name: str
    score: str
    color: RGB
    is_dashed: bool = False


def draw_detections(
    image: np.ndarray, detections: Detections, class_names: Sequence[str] | None = None, show_labels: bool = True
) -> np.ndarray:
    """A copy of `image` with the detections on it, each class in its own colour.

    Labels avoid each other and stay inside the image. Where there are too many, those with lower scores are shortened
    to the score and then left out; the boxes are always drawn.

    Args:
        image: (H, W, C), uint8 or floats in 0..255.
        detections: of torch or NumPy, in pixels of an image of `detections.size`; rescaled if `image` has another size.
        class_names: names by label; "class k" for labels without a name.
        show_labels: write names and scores.

    Raises:
        ValueError: `image` has another shape or type.
    """
    size = image.shape[:2]
    if tuple(detections.size) != size:
        detections = detections.resize(size)
    rows = zip(detections.boxes.tolist(), detections.labels.tolist(), detections.scores.tolist(), strict=True)
    marks = [
        Mark(tuple(box), _name(class_names, label), f"{score:.2f}", class_color(label))
        for box, label, score in sorted(rows, key=lambda row: -row[2])
    ]
    return draw_marks(image, marks, show_labels)


def draw_targets(
    image: np.ndarray, targets: Targets, class_names: Sequence[str] | None = None, show_labels: bool = True
) -> np.ndarray:
    """A copy of `image` with its ground truth; ignore regions are grey and dashed.

    `targets` are in pixels of `image`, as `read` of a data set returns both.
    """
    marks = []
    rows = zip(targets.boxes.tolist(), targets.labels.tolist(), targets.ignore.tolist(), strict=True)
    for box, label, ignore in rows:
        name = _name(class_names, label)
        color = IGNORED if ignore else class_color(label)
        marks.append(Mark(tuple(box), f"{name} (ignore)" if ignore else name, "", color, is_dashed=ignore))
    return draw_marks(image, marks, show_labels)


def draw_comparison(
    image: np.ndarray,
    targets: Targets,
    detections: Detections,
    class_names: Sequence[str] | None = None,
    show_labels: bool = True,
) -> np.ndarray:
    """Ground truth on the left, detections on the right, each below a title with its count (without ignore regions)."""
    truth = draw_targets(image, targets, class_names, show_labels)
    found = draw_detections(image, detections, class_names, show_labels)
    num_objects = int((~targets.ignore).sum())
    halves = [titled(truth, f"ground truth: {num_objects}"), titled(found, f"detections: {len(detections)}")]
    gap = np.full((halves[0].shape[0], 2 * line_width(image.shape[:2]), 3), 255, dtype=np.uint8)
    return np.concatenate([halves[0], gap, halves[1]], axis=1)


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """`image` with a dark strip above it that shows `title`."""
    height, width = _size(image)
    size = font_size((height, width))
    text, font = _fitted(printable(title), "", size, width - 8)
    strip_height = 2 * size  # whatever the title, so that pictures of one size stay so
    strip = Image.new("RGB", (width, strip_height), (34, 37, 42))
    start = max(round(0.5 * font.size), 4), strip_height / 2
    ImageDraw.Draw(strip).text(start, text, (240, 240, 240), font, anchor="lm")
    return np.concatenate([to_bgr(strip), image], axis=0)


def line_width(size: tuple[int, int]) -> int:
    """Width in pixels of a box line in an image of `size` (height, width): 2 for 640 x 480."""
    return max(1, round(math.sqrt(size[0] * size[1]) / 270))


def font_size(size: tuple[int, int]) -> int:
    """Height in pixels of letters in an image of `size` (height, width): 14 for 640 x 480."""
    return max(9, round(math.sqrt(size[0] * size[1]) / 40))


def draw_marks(image: np.ndarray, marks: Sequence[Mark], show_labels: bool = True) -> np.ndarray:
    """A copy of `image` with boxes and labels; large boxes are drawn first, below small ones."""
    picture = as_picture(image)
    size = _size(picture)
    canvas = picture.copy() if np.shares_memory(picture, image) else picture
    marks = [mark for mark in marks if all(map(math.isfinite, mark.box))]
    frames = [_frame(mark.box, size) for mark in marks]
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in frames]
    for index in sorted(range(len(marks)), key=lambda i: -areas[i]):
        _draw_frame(canvas, marks[index], frames[index])
    return _draw_labels(canvas, marks, frames) if show_labels and marks else canvas


def _frame(box: Sequence[float], size: tuple[int, int]) -> Rectangle:
    """The outer edge of the line around `box`, in whole pixels inside the image.

    The line of a small box is drawn outside of it, so that a defect of a few pixels stays visible.
    """
    height, width = size
    line = line_width(size)
    left, top, right, bottom = box
    is_small = min(right - left, bottom - top) < 12 * line
    out = line if is_small else line / 2
    x1 = min(max(math.floor(left - out + 0.5), 0), width - 1)
    y1 = min(max(math.floor(top - out + 0.5), 0), height - 1)
    x2 = min(max(math.ceil(right + out - 0.5), x1 + 1), width)
    y2 = min(max(math.ceil(bottom + out - 0.5), y1 + 1), height)
    return x1, y1, x2, y2


def _draw_frame(canvas: np.ndarray, mark: Mark, frame: Rectangle) -> None:
    """Draw the line, with a dark rim so that it is visible on an image of the same colour."""
    x1, y1, x2, y2 = frame
    line = line_width(_size(canvas))
    rim = max(1, line // 3)
    for part in _sides((x1 - rim, y1 - rim, x2 + rim, y2 + rim), line + 2 * rim):
        pixels = _view(canvas, part)
        pixels[:] = (pixels * np.float32(0.55)).astype(np.uint8)
    dash = 4 * line if mark.is_dashed else 0
    for part in _sides(frame, line):
        for piece in _dashes(part, dash) if dash else (part,):
            _view(canvas, piece)[:] = mark.color[::-1]


def _sides(frame: Rectangle, line: int) -> list[Rectangle]:
    """The four sides of a frame, without overlap."""
    x1, y1, x2, y2 = frame
    left, top = min(x1 + line, x2), min(y1 + line, y2)  # of the inside, which is empty in a frame of only two lines
    right, bottom = max(x2 - line, left), max(y2 - line, top)
    return [(x1, y1, x2, top), (x1, bottom, x2, y2), (x1, top, left, bottom), (right, top, x2, bottom)]


def _dashes(side: Rectangle, dash: int) -> list[Rectangle]:
    x1, y1, x2, y2 = side
    if x2 - x1 >= y2 - y1:
        return [(x, y1, min(x + dash, x2), y2) for x in range(x1, x2, 2 * dash)]
    return [(x1, y, x2, min(y + dash, y2)) for y in range(y1, y2, 2 * dash)]


def _view(canvas: np.ndarray, part: Rectangle) -> np.ndarray:
    x1, y1, x2, y2 = (max(value, 0) for value in part)
    return canvas[y1:y2, x1:x2]


def _draw_labels(canvas: np.ndarray, marks: Sequence[Mark], frames: Sequence[Rectangle]) -> np.ndarray:
    height, width = _size(canvas)
    letter = font_size((height, width))
    pad = max(1, round(letter / 6))
    variants: list[list[tuple[str, Font]]] = []  # the possible texts of each label, longest first
    for mark in marks:
        text, font = _fitted(printable(mark.name), mark.score, letter, width - 2 * pad)
        variants.append([(text, font), (mark.score, font)] if mark.score else [(text, font)])
    extents = [[_extent(text, font, pad) for text, font in options] for options in variants]
    places = place_labels(frames, [[(w, h) for w, h, _ in options] for options in extents], (height, width))
    picture = Image.fromarray(canvas[..., ::-1].copy())
    pen = ImageDraw.Draw(picture)
    for index in reversed(range(len(marks))):  # the most important labels last, above the others
        if places[index] is None:
            continue
        option, x, y = places[index]
        text, font = variants[index][option]
        label_width, label_height, baseline = extents[index][option]
        color = marks[index].color
        pen.rectangle((x, y, x + label_width - 1, y + label_height - 1), fill=color)
        pen.text((x + pad, y + baseline), text, text_color(color), font, anchor="ls")
    return to_bgr(picture)


def _fitted(name: str, score: str, size: int, width: int) -> tuple[str, Font]:
    """Name and score with their font, in at most `width` pixels: first the font shrinks, then the name is cut."""
    tail = f" {score}" if score and name else score
    font = font_for(name + DIGITS, size)
    while size > SMALLEST_FONT and font.getlength(name + tail) > width:
        size -= 1
        font = font_for(name + DIGITS, size)
    if font.getlength(name + tail) <= width:
        return name + tail, font
    kept = len(name)
    while kept > 1 and font.getlength(name[:kept] + ELLIPSIS + tail) > width:
        kept -= 1
    return name[:kept] + ELLIPSIS + tail, font


def _extent(text: str, font: Font, pad: int) -> tuple[int, int, int]:
    """Width and height of a label, and the distance of its baseline from the top."""
    _, top, right, bottom = font.getbbox(text, anchor="ls")
    _, usual_top, _, usual_bottom = font.getbbox("Ag", anchor="ls")
    ascent, descent = -min(top, usual_top), max(bottom, usual_bottom)
    width = math.ceil(max(right, font.getlength(text))) + 2 * pad
    return width, math.ceil(ascent + descent) + 2 * pad, math.ceil(ascent) + pad


def _name(class_names: Sequence[str] | None, label: int) -> str:
    if class_names is not None and label < len(class_names):
        return " ".join(class_names[label].split())
    return f"class {label}"


def _size(image: np.ndarray) -> tuple[int, int]:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"need a BGR uint8 (H, W, 3) image, got {image.dtype} {image.shape}")
    return image.shape[0], image.shape[1]
