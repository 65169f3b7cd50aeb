"""How far two models find the same in the same images, where there is no ground truth to score them with.

Shapes: D detections of the first model, E of the second.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from engine.structures import Detections

SAME_IOU = 0.9


@dataclass(frozen=True)
class Agreement:
    """Counts over many images.

    Attributes:
        num_first, num_second: detections of either model.
        score_differences: (S,) float32, second less first, of the pairs that are the same.
    """

    num_first: int
    num_second: int
    score_differences: Tensor

    @property
    def share(self) -> float:
        """The pairs in relation to the detections of both, in [0, 1]; 1 where neither found anything."""
        total = self.num_first + self.num_second
        return 2 * len(self.score_differences) / total if total else 1.0

    @property
    def largest_difference(self) -> float:
        return self.score_differences.abs().max().item() if len(self.score_differences) else 0.0

    @property
    def mean_difference(self) -> float:
        """Of the absolute values."""
        return self.score_differences.abs().mean().item() if len(self.score_differences) else 0.0


def agreement(pairs: Iterable[tuple[Detections, Detections]], iou: float = SAME_IOU) -> Agreement:
    """Two detections are the same if their classes are equal and the IoU of their boxes is at least `iou`.

    Each is the same as at most one other; pairs are formed by falling IoU.

    Args:
        pairs: what both models found in each image, in the same pixels.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
        >>> first = Detections(boxes, torch.tensor([0.5, 0.25]), torch.tensor([0, 1]), (40, 40))
        >>> second = Detections(boxes[:1], torch.tensor([0.75]), torch.tensor([0]), (40, 40))
        >>> found = agreement([(first, second)])
        >>> round(found.share, 3), found.largest_difference
        (0.667, 0.25)
    """
    num_first = num_second = 0
    differences = [torch.zeros(0)]
    for first, second in pairs:
        num_first, num_second = num_first + len(first), num_second + len(second)
        rows, columns = _same(first, second, iou)
        differences.append(second.scores[columns] - first.scores[rows])
    return Agreement(num_first, num_second, torch.cat(differences))


def _same(first: Detections, second: Detections, iou: float) -> tuple[Tensor, Tensor]:
    """Rows of `first` and of `second`, (S,) each, that are the same."""
    ious = box_iou(first.boxes, second.boxes)  # (D, E)
    ious[first.labels[:, None] != second.labels] = -1.0
    candidates = (ious >= iou).nonzero()  # (P, 2)
    ranked = candidates[ious[candidates[:, 0], candidates[:, 1]].argsort(descending=True, stable=True)]
    pairs: list[tuple[int, int]] = []
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    for row, column in ranked.tolist():
        if row not in taken_rows and column not in taken_columns:
            pairs.append((row, column))
            taken_rows.add(row)
            taken_columns.add(column)
    both = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
