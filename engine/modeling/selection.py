"""From scored boxes to detections.

Shapes: P candidate boxes, D detections.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.layers.nms import class_nms, keep_best
from engine.structures import Detections


@dataclass(frozen=True)
class Selection:
    """Which boxes of a stage become candidates, and which candidates become detections.

    Attributes:
        score_thresh: candidates score more than this.
        pre_nms_top_n: candidates per level and image, 0 for no limit. (The second stage has none.)
        nms_thresh: IoU with a better box of its class above which a candidate is suppressed.
        max_detections: per image, 0 for no limit.
    """

    score_thresh: float = 0.05
    pre_nms_top_n: int = 1000
    nms_thresh: float = 0.6
    max_detections: int = 100

    def __call__(self, candidates: Detections) -> Detections:
        """Class-wise NMS, then the `max_detections` best (more where scores tie with the last), by falling score."""
        kept = class_nms(candidates.boxes, candidates.scores, candidates.labels, self.nms_thresh)
        return candidates[kept[keep_best(candidates.scores[kept], self.max_detections)]]
