"""From scored boxes to detections.

Shapes: P candidate boxes, D detections.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.layers.nms import class_nms, keep_best
from engine.layers.score_voting import score_vote
from engine.structures import Detections


@dataclass(frozen=True)
class Selection:
    """Which boxes of a stage become candidates, and which candidates become detections.

    Attributes:
        score_thresh: candidates score more than this.
        pre_nms_top_n: candidates per level and image, 0 for no limit. (The second stage has none.)
        nms_thresh: IoU with a better box of its class above which a candidate is suppressed.
        max_detections: per image, 0 for no limit.
        vote_sigma: sigma of score voting, which moves each detection towards the candidates of its class that overlap
            it (see `layers.score_voting`); 0 leaves the boxes as they are.
    """

    score_thresh: float = 0.05
    pre_nms_top_n: int = 1000
    nms_thresh: float = 0.6
    max_detections: int = 100
    vote_sigma: float = 0.0

    def __call__(self, candidates: Detections) -> Detections:
        """Class-wise NMS, then the `max_detections` best (more where scores tie with the last), by falling score.

        Their boxes are voted on by all candidates, their scores stay.
        """
        boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
        kept = class_nms(boxes, scores, labels, self.nms_thresh)
        kept = kept[keep_best(scores[kept], self.max_detections)]
        found = candidates[kept]
        if not self.vote_sigma:
            return found
        return replace(found, boxes=score_vote(boxes, scores, labels, kept, self.vote_sigma))
