"""From scored boxes to detections.

Shapes: P candidate boxes, D detections.
"""

from __future__ import annotations

from torch import Tensor

from engine.layers.nms import class_nms, keep_best
from engine.structures import Detections


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    size: tuple[int, int],
    nms_thresh: float,
    max_detections: int,
) -> Detections:
    """Class-wise NMS, then the `max_detections` best (more where scores tie with the last one), by falling score.

    Args:
        boxes: (P, 4) float32, clipped to the image.
        scores: (P,) float32 in [0, 1].
        labels: (P,) int64.
        size: (height, width) of the image.
        nms_thresh: IoU above which the lower score of a class is suppressed.
        max_detections: 0 for no limit.
    """
    kept = class_nms(boxes, scores, labels, nms_thresh)
    kept = kept[keep_best(scores[kept], max_detections)]
    return Detections(boxes[kept], scores[kept], labels[kept], size)
