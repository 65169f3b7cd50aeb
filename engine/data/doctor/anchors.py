"""Boxes that no anchor reaches, or that get no positive anchor.

Shapes: M boxes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from engine.data.doctor.case import CHECKS, Case
from engine.data.doctor.findings import MOST_EXAMPLES, Example, Finding, declare

_REACHED = 0.3  # IoU with the best anchor; less, and the box lies outside what the deltas usually correct
_MANY = 0.05  # of the boxes: from here on a warning

UNREACHABLE = declare(
    "ANCHOR_UNREACHABLE",
    "note",
    f"No anchor has an IoU of {_REACHED} with a box. A warning if more than {_MANY:.0%} of the boxes are like this.",
    "Change ANCHOR_SIZES and ASPECT_RATIOS (tools/analyze_anchors.py suggests some), or the size of the input.",
)
NO_POSITIVE = declare(
    "ANCHOR_NO_POSITIVE",
    "note",
    f"A box gets no positive anchor, so it is never learned. A warning if more than {_MANY:.0%} of the boxes are like "
    "this.",
    "As for ANCHOR_UNREACHABLE; or another rule of assignment (MODEL.ATSS.POSITIVE_TYPE).",
)


@CHECKS.register("anchors")
def check_anchors(case: Case) -> Iterator[Finding]:
    """The boxes of the training sets against the anchors of the model."""
    fit = case.anchors
    if fit is None or not len(fit.best_iou):
        return
    total = len(fit.best_iou)
    lacking = np.zeros(total, dtype=bool) if fit.positives is None else fit.positives == 0
    unreachable = fit.best_iou < _REACHED
    seen = " in a sample of the images" if total < sum(each.num_boxes for each in case.having("train")) else ""
    for code, which, text in (
        (UNREACHABLE, unreachable, f"have no anchor with an IoU of {_REACHED}"),
        (NO_POSITIVE, lacking, "get no positive anchor"),
    ):
        if count := int(which.sum()):
            severity = "warning" if count > _MANY * total else ""
            message = f"{count} of {total} boxes{seen} {text}"
            yield code.finding(message, count, "", _examples(case, which), severity)


def _examples(case: Case, which: np.ndarray) -> Iterator[Example]:
    fit = case.anchors
    rows = np.flatnonzero(which)
    rows = rows[np.argsort(fit.best_iou[rows], kind="stable")][:MOST_EXAMPLES]
    train = case.having("train")
    for row in rows.tolist():
        width, height = fit.shapes[row]
        which_set, box = fit.sources[row].tolist()
        yield train[which_set].box(box, f"{width:.0f} x {height:.0f} after resizing, best IoU {fit.best_iou[row]:.2f}")
