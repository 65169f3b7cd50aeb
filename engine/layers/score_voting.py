"""Score voting (Kim & Lee, 2020, "Probabilistic Anchor Assignment", eq. 12): suppressed boxes move the one that stays.

Shapes: P candidates, D boxes that survived suppression.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.structures import boxes as box_ops

MIN_IOU = 0.01
"""Candidates that overlap a box by less do not vote (mmdetection); their weight would be below 1e-17 at sigma 0.025."""
MAX_PAIRS = 2**16
"""Pairs of box and candidate in memory at once; few enough for the cache of a CPU."""


def score_vote(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor, sigma: float) -> Tensor:
    """Each kept box becomes the mean of its class's candidates near it, itself included.

    The weight of a candidate is its score times exp(-(1 - IoU with the kept box)^2 / sigma). A box that no other
    candidate overlaps does not change, nor does one without extent. Candidates that are not finite do not vote.

    Args:
        boxes: (P, 4) float, xyxy.
        scores: (P,) float, not negative.
        labels: (P,) int64.
        kept: (D,) int64 indices of the boxes that survived.
        sigma: larger than 0; 0.025 in the paper. The smaller it is, the less distant candidates weigh.

    Returns:
        (D, 4) in the order of `kept`.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 12.0]])
        >>> voted = score_vote(boxes, torch.tensor([0.9, 0.6]), torch.tensor([3, 3]), torch.tensor([0]), 0.025)
        >>> [round(side, 2) for side in voted[0].tolist()]
        [0.0, 0.0, 10.0, 10.36]
    """
    # In float64, so that a box alone keeps its bits and the order of the candidates does not show in float32.
    is_finite = boxes.isfinite().all(dim=1) & scores.isfinite()
    voters, weights, classes = boxes[is_finite].double(), scores[is_finite].double(), labels[is_finite]
    if not len(voters):
        return boxes[kept]
    parts = [
        _vote(part.double(), part_labels, voters, weights, classes, sigma)
        for part, part_labels in zip(
            *(each[kept].split(max(MAX_PAIRS // len(voters), 1)) for each in (boxes, labels)), strict=True
        )
    ]
    return torch.cat(parts).to(boxes.dtype)


def vote_in_rows(
    boxes: Tensor, labels: Tensor, voters: Tensor, scores: Tensor, classes: Tensor, sigma: float
) -> Tensor:
    """`score_vote` of several images at once, without branches on values; a voter with a score of 0 does not count.

    Args:
        boxes, labels: (N, D, 4) and (N, D) of the boxes that survived.
        voters, scores, classes: (N, P, 4), (N, P) and (N, P) of the candidates.

    Returns:
        (N, D, 4).
    """
    is_finite = voters.isfinite().all(dim=-1) & scores.isfinite()  # (N, P)
    voters = torch.where(is_finite[..., None], voters, 0.0).double()
    scores = torch.where(is_finite, scores, 0.0).double()
    return _vote(boxes.double(), labels, voters, scores, classes, sigma).to(boxes.dtype)


def _vote(boxes: Tensor, labels: Tensor, voters: Tensor, scores: Tensor, classes: Tensor, sigma: float) -> Tensor:
    """`score_vote` of a few boxes (..., D, 4), all float64."""
    ious = _ious(boxes, voters)  # (..., D, P)
    votes = (ious > MIN_IOU) & (labels[..., None] == classes[..., None, :])
    weights = torch.where(votes, scores[..., None, :] * torch.exp(-((1 - ious) ** 2) / sigma), 0.0)  # (..., D, P)
    totals = weights.sum(dim=-1, keepdim=True)  # (..., D, 1)
    # As a step from the box, which is exactly 0 where the box is the only voter.
    steps = weights @ voters - totals * boxes
    moved = boxes + steps / torch.where(totals > 0, totals, 1.0)
    lowest, highest = voters.amin(dim=-2, keepdim=True), voters.amax(dim=-2, keepdim=True)  # (..., 1, 4)
    return torch.where(totals > 0, moved, boxes).clamp(lowest, highest)


def _ious(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU (..., D, P) of boxes (..., D, 4) and (..., P, 4), NaN for two without extent.

    Coordinate by coordinate, which is faster.
    """
    left, top, right, bottom = boxes[..., None].unbind(dim=-2)  # (..., D, 1) each
    other_left, other_top, other_right, other_bottom = others[..., None, :, :].unbind(dim=-1)  # (..., 1, P) each
    widths = (torch.minimum(right, other_right) - torch.maximum(left, other_left)).clamp_(min=0)  # (..., D, P)
    heights = (torch.minimum(bottom, other_bottom) - torch.maximum(top, other_top)).clamp_(min=0)  # (..., D, P)
    overlaps = widths * heights
    return overlaps / (box_ops.area(boxes)[..., None] + box_ops.area(others)[..., None, :] - overlaps)
