"""Checks of `MODEL.DENSE.ARGS`, and the parts that several stages make of them.

`registry.call_with` puts the key before what the checks say.
"""

from __future__ import annotations

import math
from numbers import Real

from engine.modeling.anchors import AnchorGenerator
from engine.modeling.dense.stage import DenseShape
from engine.modeling.selection import Selection


def check_range(
    at_least: float = -math.inf, at_most: float = math.inf, above: float = -math.inf, **values: object
) -> None:
    """Each of `values` must be a finite number within the limits.

    Raises:
        ValueError: names the argument and its limits.

    Example:
        >>> check_range(at_least=1, reg_max=0)
        Traceback (most recent call last):
        ValueError: reg_max must be at least 1, got 0
    """
    limits = (("at least", at_least), ("above", above), ("at most", at_most))
    wanted = " and ".join(f"{word} {limit:g}" for word, limit in limits if math.isfinite(limit)) or "finite"
    for name, value in values.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not (at_least <= value <= at_most and value > above):
            raise ValueError(f"{name} must be {wanted if is_number else 'a number ' + wanted}, got {value!r}")


def check_counts(at_least: int = 0, **values: object) -> None:
    """Each of `values` must be a whole number.

    Raises:
        ValueError: names the argument and what it may be.

    Example:
        >>> check_counts(at_least=1, topk=2.5)
        Traceback (most recent call last):
        ValueError: topk must be a whole number of at least 1, got 2.5
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")


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
