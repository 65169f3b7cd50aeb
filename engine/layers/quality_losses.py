"""Losses of soft labels: the class of a positive is learnt as the quality of its box, not as 1.

Shapes: P rows or positives, K classes, B bins.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def quality_focal_loss_sum(logits: Tensor, labels: Tensor, qualities: Tensor, gamma: float = 2.0) -> Tensor:
    """Sum of the quality focal loss (Li et al., 2020, eq. 2) over all rows and classes; stable for saturated logits.

    |target - sigmoid(logit)|^gamma times the cross entropy with the target: the quality for the label of a positive
    row, 0 for all else. The factor carries gradient too. With qualities of 1 it is twice the focal loss of alpha 0.5.

    Args:
        logits: (..., K) float.
        labels: (...) int64; 0..K-1 positive, -1 negative for every class, -2 ignored.
        qualities: of the positive rows in their order, in [0, 1].
        gamma: focusing power (beta in the paper).

    Returns:
        Scalar; 0 with gradient when every row is ignored.
    """
    targets, counted = _soft_targets(logits, labels, qualities)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    losses = losses * (targets - logits.sigmoid()).abs().pow(gamma)
    return (losses * counted).sum()


def varifocal_loss_sum(
    logits: Tensor, labels: Tensor, qualities: Tensor, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    """Sum of the varifocal loss (Zhang et al., 2021, eq. 2) over all rows and classes.

    Positives weigh as much as their quality and are not faded out; negatives weigh alpha * sigmoid(logit)^gamma.

    Args: as for `quality_focal_loss_sum`; a positive of quality 0 is a negative.
    """
    targets, counted = _soft_targets(logits, labels, qualities)
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    weights = torch.where(targets > 0, targets, alpha * logits.sigmoid().pow(gamma))
    return (losses * weights * counted).sum()


def distribution_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Distribution focal loss (Li et al., 2020, eq. 6): (P,).

    Cross entropy with the two bins next to the target, each weighted by how near it lies.

    Args:
        logits: (P, B) float; bin i stands for the value i.
        targets: (P,) float in [0, B - 1).
    """
    left = targets.floor()
    nearness = torch.stack([left + 1 - targets, targets - left], dim=1)  # (P, 2), of the left and the right bin
    bins = torch.stack([left, left + 1], dim=1).long()  # (P, 2)
    return -(logits.log_softmax(dim=1).gather(1, bins) * nearness).sum(dim=1)


def _soft_targets(logits: Tensor, labels: Tensor, qualities: Tensor) -> tuple[Tensor, Tensor]:
    """Targets (..., K) and which rows count, (..., 1)."""
    targets = torch.zeros_like(logits)
    is_positive = labels >= 0
    rows = is_positive.nonzero(as_tuple=True)
    targets[(*rows, labels[is_positive])] = qualities.to(targets)
    return targets, (labels != -2)[..., None]
