"""Boxes against other boxes of their image: repeated, labelled twice, too many.

Shapes: M boxes, P pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from engine.data.doctor.case import CHECKS, Case
from engine.data.doctor.examined import ExaminedSet
from engine.data.doctor.findings import MOST_EXAMPLES, Finding, declare

_SAME_IOU = 0.9
_NEIGHBOURS = 32  # that each box is compared with, in the order of left edges, so that the work grows with the boxes

REPEATED = declare(
    "BOX_REPEATED",
    "warning",
    "A box repeats another one of its image and class. Both are used.",
    "Remove the repeats; `--fix` does.",
)
CONFLICT = declare(
    "BOX_CONFLICT",
    "warning",
    f"Two boxes of different classes are the same (IoU of {_SAME_IOU} or more).",
    "Decide which class the object has; if it really has both, ignore this.",
)
NEARLY_REPEATED = declare(
    "BOX_NEARLY_REPEATED",
    "note",
    f"Two boxes of one class overlap with an IoU of {_SAME_IOU} or more.",
    "Look at them: the object may have been labelled twice.",
)
TOO_MANY = declare(
    "BOX_TOO_MANY",
    "warning",
    "Images hold more objects than the model can find, or than metrics see.",
    "Raise the key that the message names.",
)


@CHECKS.register("box_pairs")
def check_box_pairs(case: Case) -> Iterator[Finding]:
    """Repeats and conflicts in each data set."""
    for examined in case.datasets:
        yield from _repeats(examined)
        yield from _overlaps(examined)


@CHECKS.register("box_counts")
def check_box_counts(case: Case) -> Iterator[Finding]:
    """Objects per image against the limits of model and metrics; test and validation sets, as only there they count."""
    if case.plan is None:
        return
    for examined in case.datasets:
        if examined.roles == ("train",):
            continue
        per_image, plan = examined.boxes_per_image, case.plan
        boxes, num_classes = examined.boxes, max(len(examined.class_names), 1)
        cells = boxes.images * num_classes + boxes.labels.clip(0)
        per_class = np.bincount(cells[boxes.trainable], minlength=len(per_image) * num_classes)
        per_class = per_class.reshape(-1, num_classes).max(1, initial=0)  # (n,) of the most frequent class
        counts = {"TEST.MAX_DETS": (plan.max_dets, per_class, " of one class")}
        counts |= {key: (limit, per_image, "") for key, limit in plan.limits.items()}
        for key, (limit, number, of_class) in counts.items():
            crowded = np.flatnonzero(number > limit)
            if limit and len(crowded):
                worst = crowded[np.argsort(-number[crowded], kind="stable")]
                message = f"{len(crowded)} images hold more than {limit} objects{of_class} (up to {number.max()}); "
                message += f"raise {key}"
                yield TOO_MANY.finding(message, len(crowded), examined.name, examined.images(worst))


def _repeats(examined: ExaminedSet) -> Iterator[Finding]:
    boxes = examined.boxes
    repeats = np.flatnonzero(repeated(examined))
    if count := len(repeats):
        message = f"{count} of {len(boxes)} boxes repeat another box of their image and class"
        which = np.zeros(len(boxes), dtype=bool)
        which[repeats] = True
        yield REPEATED.finding(message, count, examined.name, examined.some_boxes(which))


def repeated(examined: ExaminedSet) -> np.ndarray:
    """(M,) bool: boxes that repeat another one of their image and class, which comes first."""
    boxes = examined.boxes
    columns = (boxes.images, boxes.labels, *boxes.corners.T, *boxes.extents.T)
    order = np.lexsort(columns)  # stable: of equal ones the first of the file comes first
    is_equal = [column[order][1:] == column[order][:-1] for column in columns]
    which = np.zeros(len(order), dtype=bool)
    which[order[1:]] = np.logical_and.reduce(is_equal)
    return which


def _overlaps(examined: ExaminedSet) -> Iterator[Finding]:
    boxes = examined.boxes
    first, second, is_identical = _similar_pairs(examined)
    same_class = boxes.labels[first] == boxes.labels[second]
    for code, pairs, text in (
        (CONFLICT, ~same_class, "pairs of boxes are the same but have different classes"),
        (NEARLY_REPEATED, same_class & ~is_identical, "pairs of boxes of one class are nearly the same"),
    ):
        if count := int(pairs.sum()):
            rows = zip(first[pairs].tolist(), second[pairs].tolist(), strict=True)
            named = (examined.box(a, " / ".join(map(str, (_class(examined, a), _class(examined, b))))) for a, b in rows)
            yield code.finding(f"{count} {text}", count, examined.name, islice(named, MOST_EXAMPLES))


def _class(examined: ExaminedSet, box: int) -> str:
    label = int(examined.boxes.labels[box])
    return examined.class_names[label] if label >= 0 else "?"


def _similar_pairs(examined: ExaminedSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (P,), (P,) of boxes with an IoU of `_SAME_IOU` or more, and (P,) whether they are identical.

    Boxes of an image that overlap so much have nearly the same left edge, so in the order of left edges only the next
    few need to be compared.
    """
    boxes = examined.boxes
    rows = np.flatnonzero(boxes.trainable)
    order = rows[np.lexsort((boxes.corners[rows, 0], boxes.images[rows]))]
    corners, far, images = boxes.corners[order], boxes.far[order], boxes.images[order]
    firsts, seconds, identical = [], [], []
    left = np.arange(len(order))
    areas, width = np.prod(far - corners, axis=1), (far - corners)[:, 0]
    for step in range(1, _NEIGHBOURS + 1):
        left = left[left + step < len(order)]
        right = left + step
        # Those whose left edges lie further apart than a tenth of the width have no later partner either.
        near = (images[left] == images[right]) & (corners[right, 0] - corners[left, 0] <= 0.1 * width[left])
        left, right = left[near], right[near]
        if not len(left):
            break
        sides = np.minimum(far[left], far[right]) - np.maximum(corners[left], corners[right])
        overlap = sides.clip(0).prod(1)
        similar = overlap >= _SAME_IOU * (areas[left] + areas[right] - overlap)
        a, b = left[similar], right[similar]
        firsts.append(order[a])
        seconds.append(order[b])
        identical.append((corners[a] == corners[b]).all(1) & (far[a] == far[b]).all(1))
    if not firsts:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool)
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(identical)
