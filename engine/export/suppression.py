"""Non-maximum suppression of padded boxes, in two forms: torch's operators, and one operator that ONNX has as such.

Shapes: N images, P boxes of each, some of them no candidates (their score is `NO_SCORE`), K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import nms

NO_SCORE = -1.0
"""Of a row of a fixed-size tensor that holds no box: real scores lie in [0, 1]."""
LOWEST_SCORE = -0.5
"""Between `NO_SCORE` and all real scores."""

Suppress = Callable[[Tensor, Tensor, Tensor, int, float], Tensor]
"""(boxes (N, P, 4), scores (N, P), labels (N, P) in 0..K-1, K, IoU threshold) -> mask (N, P) of the boxes that stay."""


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, iou_thresh: float) -> Tensor:
    """The boxes (N, P) that survive within their image and class, as `layers.nms.class_nms` chooses them.

    Example:
        >>> boxes = torch.tensor([[[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 5.0], [0.0, 0.0, 4.0, 5.0]]])
        >>> suppress(boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[0, 0, 1]]), 2, 0.5).tolist()
        [[True, False, True]]
    """
    is_real = scores > LOWEST_SCORE
    if not 0 < iou_thresh < 1:  # none is suppressed, as in `class_nms`
        return is_real
    groups = torch.arange(scores.shape[0], device=scores.device)[:, None] * num_classes + labels  # (N, P)
    # Rows without a box form a group of their own, whose survivors are dropped below.
    groups = torch.where(is_real, groups, -1)
    exact = boxes.double()  # so that the offset changes no IoU
    span = torch.cat([exact.flatten(), exact.new_zeros(1)]).aminmax()
    apart = exact + ((span.max - span.min + 1) * groups)[..., None]
    kept = nms(apart.flatten(0, 1), scores.double().flatten(), iou_thresh)
    is_kept = torch.zeros_like(is_real).flatten().index_fill(0, kept, 1).view_as(is_real)
    return is_kept & is_real


@torch.library.custom_op("engine::class_nms", mutates_args=())
def suppress_as_one(boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, iou_thresh: float) -> Tensor:
    """`suppress` as a single operator, which the ONNX writer translates to NonMaxSuppression."""
    return suppress(boxes, scores, labels, num_classes, iou_thresh)


@suppress_as_one.register_fake
def _(boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, iou_thresh: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)
