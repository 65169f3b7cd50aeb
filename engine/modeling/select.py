"""From scored boxes to detections.

Shapes: P candidate boxes, D detections.
"""

from __future__ import annotations

from engine.layers.nms import class_nms, keep_best
from engine.structures import Detections


def select_detections(candidates: Detections, nms_thresh: float, max_detections: int) -> Detections:
    """Class-wise NMS, then the `max_detections` best (more where scores tie with the last one), by falling score.

    Args:
        candidates: P of them, clipped to the image.
        nms_thresh: IoU above which the lower score of a class is suppressed.
        max_detections: 0 for no limit.
    """
    kept = class_nms(candidates.boxes, candidates.scores, candidates.labels, nms_thresh)
    return candidates[kept[keep_best(candidates.scores[kept], max_detections)]]
