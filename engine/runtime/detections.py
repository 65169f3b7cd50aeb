"""Detections as arrays, for processes without torch.

Shapes: D detections of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Detections:
    """What was found in one image (D detections, possibly none), as `structures.Detections` in NumPy.

    Attributes:
        boxes: (D, 4) float32, xyxy, in pixels of an image of `size`.
        scores: (D,) float32 in [0, 1].
        labels: (D,) int64 in 0..K-1.
        size: (height, width) of that image.

    Example:
        >>> found = Detections(np.float32([[0, 0, 2, 3]]), np.float32([0.5]), np.int64([1]), (10, 20))
        >>> len(found), len(found[found.scores > 0.6]), found.by_name(["hole", "stain"])["stain"].boxes.tolist()
        (1, 0, [[0.0, 0.0, 2.0, 3.0]])
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: np.ndarray | slice) -> Detections:
        """The rows that a bool mask (D,), indices (M,) or a slice select."""
        return replace(self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index])

    @classmethod
    def empty(cls, size: tuple[int, int]) -> Detections:
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), size)

    @classmethod
    def cat(cls, parts: Sequence[Detections]) -> Detections:
        """The rows of all `parts` (at least one) in their order, in an image of the size of the first."""
        rows = (np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "labels"))
        return cls(*rows, parts[0].size)

    def by_name(self, class_names: Sequence[str]) -> dict[str, Detections]:
        """The detections of each class that has some; label k is class_names[k]."""
        return {class_names[label]: self[self.labels == label] for label in np.unique(self.labels).tolist()}

    def resize(self, size: tuple[int, int], box_extent: float = 0.0) -> Detections:
        """The same detections in the image scaled to `size` (height, width), clipped to it.

        As `structures.Detections.resize`; `box_extent` is `structures.PixelConvention.extent`.
        """
        ratios = np.float32([size[1] / self.size[1], size[0] / self.size[0]] * 2)
        extent = np.float32([0, 0, box_extent, box_extent])
        far = np.float32([size[1], size[0]] * 2)
        boxes = (self.boxes - extent) * ratios + extent
        boxes = np.clip(boxes, extent, far - extent[[2, 3, 0, 1]])
        return replace(self, boxes=boxes, size=tuple(size))
