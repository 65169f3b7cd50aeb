"""Parts that several stages make of `MODEL.DENSE.ARGS`, checked; see `modeling.arguments`."""

from __future__ import annotations

from engine.modeling.anchors import AnchorGenerator
from engine.modeling.arguments import check_counts, check_range
from engine.modeling.dense.stage import DenseShape
from engine.modeling.selection import Selection


def check_prior(prior: object) -> None:
    """`prior`, the score of every class before training, must have a logit.

    Raises:
        ValueError: it is not between 0 and 1.
    """
    check_range(at_least=1e-9, at_most=1 - 1e-9, prior=prior)


def square_anchors(shape: DenseShape, anchor_size: float) -> AnchorGenerator:
    """One square anchor per cell.

    Args:
        shape: of the stage.
        anchor_size: its side, in strides.

    Raises:
        ValueError: `anchor_size` is not above 0.
    """
    check_range(above=0, anchor_size=anchor_size)
    return AnchorGenerator([[anchor_size * stride] for stride in shape.strides], [1.0], shape.strides, shape.convention)


def selection_of(shape: DenseShape, score_thresh: float, pre_nms_top_n: int, nms_thresh: float) -> Selection:
    """A `Selection` of as many detections as `shape` says.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_counts(pre_nms_top_n=pre_nms_top_n)
    check_range(at_least=0, at_most=1, score_thresh=score_thresh, nms_thresh=nms_thresh)
    return Selection(score_thresh, pre_nms_top_n, nms_thresh, shape.max_detections)
