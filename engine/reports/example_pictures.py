"""Small pictures of the examples of findings: the box in question with what surrounds it.

Images are BGR uint8 (H, W, 3); boxes are xyxy in pixels of the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import cv2
import numpy as np

from engine.data.annotations import ImageId
from engine.data.dataset import DetectionDataset
from engine.data.doctor import Example
from engine.errors import InputError
from engine.structures import Targets
from engine.visualize.colors import class_color
from engine.visualize.draw import IGNORED, Mark, as_picture, draw_marks

WIDTH, HEIGHT = 360, 270
"""Largest sides of a picture."""
_CONTEXT = 3.0  # a picture shows this many times the box to each side
_LEAST = 48  # pixels of the image that a picture shows
_PAPER = 128  # grey level beyond the image
_CHOSEN = (230, 0, 60)
"""RGB of the box in question."""

_MOST_BOXES, _MOST_LABELS = 200, 12

Box = tuple[float, float, float, float]


class ExamplePictures:
    """Draws examples of the images of `datasets`, by name."""

    def __init__(self, datasets: Mapping[str, DetectionDataset]) -> None:
        self._datasets = datasets
        self._index_of: dict[str, dict[ImageId, int]] = {}

    def draw(self, example: Example) -> np.ndarray | None:
        """A picture of an example; None if it has no image, or one that cannot be read."""
        dataset = self._datasets.get(example.dataset)
        if dataset is None or example.image_id is None:
            return None
        if example.dataset not in self._index_of:
            ids = dataset.image_ids
            self._index_of[example.dataset] = {image_id: index for index, image_id in enumerate(ids)}
        index = self._index_of[example.dataset].get(example.image_id)
        if index is None:
            return None
        try:
            image, targets = dataset.read(index)
        except InputError:
            return None
        box = None
        if example.box and all(abs(value) < 1e9 for value in example.box):
            x, y, width, height = example.box
            box = (min(x, x + width), min(y, y + height), max(x, x + width), max(y, y + height))
        return draw_example(as_picture(image), targets, dataset.class_names, box)


def draw_example(image: np.ndarray, targets: Targets, class_names: list[str], box: Box | None) -> np.ndarray:
    """The part of `image` around `box` (all of it without one), with `box` and the other boxes there."""
    view = _view(image.shape[:2], box)
    scale = min(WIDTH / (view[2] - view[0]), HEIGHT / (view[3] - view[1]))
    canvas = _cut(image, view, scale)
    marks = []
    rows = zip(targets.boxes.tolist(), targets.labels.tolist(), targets.ignore.tolist(), strict=True)
    for other, label, ignore in rows:
        is_seen = other[0] < view[2] and other[2] > view[0] and other[1] < view[3] and other[3] > view[1]
        is_chosen = box is not None and np.allclose(other, box, atol=0.1)
        if is_seen and not is_chosen:
            color = IGNORED if ignore else class_color(label)
            marks.append(Mark(_moved(other, view, scale), class_names[label], "", color, is_dashed=ignore))
    drawn = draw_marks(canvas, marks[:_MOST_BOXES], show_labels=len(marks) <= _MOST_LABELS)
    return drawn if box is None else draw_marks(drawn, [Mark(_moved(box, view, scale), "here", "", _CHOSEN)])


def _view(size: tuple[int, int], box: Box | None) -> Box:
    """The part of an image of `size` to show, xyxy; it reaches beyond the image where the box does, but not far."""
    height, width = size
    if box is None:
        return (0, 0, width, height)
    limits = (-0.5 * width, -0.5 * height, 1.5 * width, 1.5 * height)
    if box[2] < limits[0] or box[3] < limits[1] or box[0] > limits[2] or box[1] > limits[3]:
        return (0, 0, width, height)
    sides = (box[2] - box[0], box[3] - box[1])
    reach = max(_CONTEXT * max(sides), _LEAST)
    near = (box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach)
    # Not beyond the image but for the box itself.
    edge = (min(0, box[0]), min(0, box[1]), max(width, box[2]), max(height, box[3]))
    first = [max(near[k], edge[k], limits[k]) for k in (0, 1)]
    last = [min(near[k], edge[k], limits[k]) for k in (2, 3)]
    return (math.floor(first[0]), math.floor(first[1]), math.ceil(last[0]), math.ceil(last[1]))


def _cut(image: np.ndarray, view: Box, scale: float) -> np.ndarray:
    """The part `view` of an image, resized; grey where there is no image."""
    size = max(round((view[2] - view[0]) * scale), 1), max(round((view[3] - view[1]) * scale), 1)  # width, height
    shift = np.array([[scale, 0, -view[0] * scale], [0, scale, -view[1] * scale]])
    if scale < 0.5:  # a large image: averaged first, so that thin lines do not vanish
        left, top, right, bottom = (int(v) for v in np.clip(view, 0, [*image.shape[1::-1]] * 2))
        part = image[top:bottom, left:right]
        small = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        canvas = np.full((size[1], size[0], 3), _PAPER, np.uint8)
        x, y = round((left - view[0]) * scale), round((top - view[1]) * scale)
        small = small[: size[1] - y, : size[0] - x]
        canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
        return canvas
    interpolation = cv2.INTER_NEAREST if scale >= 3 else cv2.INTER_LINEAR
    border = (_PAPER,) * 3
    return cv2.warpAffine(image, shift, size, flags=interpolation, borderValue=border)


def _moved(box: Box, view: Box, scale: float) -> Box:
    return tuple((value - view[k % 2]) * scale for k, value in enumerate(box))
