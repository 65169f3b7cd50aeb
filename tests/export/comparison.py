"""Whether an exported file finds what its model finds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.structures import Detections


def compare(found: Sequence[np.ndarray], expected: Sequence[Detections]) -> None:
    """The same detections, in any order where scores are within the tolerance."""
    boxes, scores, labels, counts = (torch.as_tensor(each) for each in found)
    assert counts.tolist() == [len(each) for each in expected]
    for i, wanted in enumerate(expected):
        count = len(wanted)
        order = order_of(boxes[i, :count], scores[i, :count], labels[i, :count], wanted)
        assert torch.equal(labels[i, :count][order], wanted.labels)
        torch.testing.assert_close(boxes[i, :count][order], wanted.boxes, atol=0.05, rtol=0)
        torch.testing.assert_close(scores[i, :count][order], wanted.scores, atol=1e-3, rtol=0)
        assert (scores[i, :count].diff() <= 0).all()


def order_of(boxes: Tensor, scores: Tensor, labels: Tensor, wanted: Detections) -> Tensor:
    """For each detection wanted, which of those found is nearest to it; each is taken once."""
    distance = torch.cdist(wanted.boxes, boxes, p=torch.inf) + 50 * (wanted.scores[:, None] - scores).abs()
    distance[wanted.labels[:, None] != labels] = 1e6
    order = []
    for row in distance:
        order.append(int(row.argmin()))
        distance[:, order[-1]] = torch.inf
    return torch.tensor(order, dtype=torch.int64)
