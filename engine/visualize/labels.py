"""Places labels next to their boxes, inside the image, without covering each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels, right and bottom excluded

MAX_COVERED = 0.1  # share of a label that earlier labels may overlap before a shorter text is tried
MAX_COVERED_LAST = 0.25  # the same for the shortest text, which is left out beyond it
MAX_IMAGE_COVERED = 0.35  # share of the image that labels may hide, except the first
COST_COVERED = 4.0  # per share of the label that is covered
COST_HIDING = 1.0  # per share of a box that is hidden
COST_LATER = 0.02  # per position in the list of preferred places


def place_labels(
    frames: Sequence[Rectangle], sizes: Sequence[Sequence[tuple[int, int]]], image_size: tuple[int, int]
) -> list[tuple[int, int, int] | None]:
    """A place for the label of each frame; earlier frames choose first.

    Args:
        frames: outer edges of the D drawn boxes.
        sizes: for each frame the (width, height) of the possible texts of its label, longest first.
        image_size: (height, width).

    Returns:
        For each frame (index of the text, left, top), or None if no text fits between the earlier labels, or if these
        hide too much of the image already. The first frame always gets a label.
    """
    boxes = np.asarray(frames, dtype=np.float64).reshape(-1, 4)  # (D, 4)
    box_areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1.0)
    taken = np.empty((0, 4))  # by earlier labels
    room = MAX_IMAGE_COVERED * image_size[0] * image_size[1]
    places: list[tuple[int, int, int] | None] = []
    for index, options in enumerate(sizes):
        place = None
        for option, (width, height) in enumerate(options):
            if len(taken) and width * height > room:
                continue
            spots = _spots(boxes[index], width, height, image_size)  # (P, 4)
            covered = _overlaps(spots, taken).sum(axis=1) / (width * height)
            hiding = (_overlaps(spots, boxes) / box_areas).sum(axis=1)
            limit = MAX_COVERED_LAST if option == len(options) - 1 else MAX_COVERED
            if covered.min() > limit:
                continue
            cost = COST_COVERED * covered + COST_HIDING * hiding + COST_LATER * np.arange(len(spots))
            best = int(np.argmin(np.where(covered <= limit, cost, np.inf)))
            place = option, int(spots[best, 0]), int(spots[best, 1])
            taken = np.append(taken, spots[best : best + 1], axis=0)
            room -= width * height
            break
        places.append(place)
    return places


def _spots(box: np.ndarray, width: int, height: int, image_size: tuple[int, int]) -> np.ndarray:
    """Places (P, 4) next to `box` and in its corners, preferred ones first, moved into the image."""
    left, top, right, bottom = box
    above, lowest, before, last = top - height, bottom - height, left - width, right - width
    above_or_below = [(left, above), (left, bottom), (last, above), (last, bottom)]
    beside = [(right, top), (before, top), (right, lowest), (before, lowest)]
    inside = [(left, top), (left, lowest), (last, top), (last, lowest)]
    limit = np.maximum([image_size[1] - width, image_size[0] - height], 0)
    corners = np.clip(above_or_below + beside + inside, 0, limit)
    return np.concatenate([corners, corners + (width, height)], axis=1)


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas (A, B) of the intersections of rectangles (A, 4) and (B, 4)."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.clip(bottom_right - top_left, 0, None).prod(axis=2)
