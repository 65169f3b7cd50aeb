"""Detections cut out of their image, for a gallery or a second classifier. Torch is not imported here."""

from __future__ import annotations

import numpy as np

from engine.data.results import Found, arrays_of


def crops(image: np.ndarray, found: Found, margin: float = 0.1) -> list[np.ndarray]:
    """A picture (h, w, C) or (h, w) of each detection, in their order; copies of whole pixels, at least one.

    Args:
        image: (H, W, C) or (H, W), of the size that the detections have.
        margin: how much of its surroundings is shown: this share of the width left and right, of the height above and
            below, as far as the image goes.

    Raises:
        ValueError: the image has another size, or the margin is negative.

    Example:
        >>> import types
        >>> found = types.SimpleNamespace(boxes=[[10, 0, 30, 10]], scores=[0.5], labels=[0], size=(40, 60))
        >>> [each.shape for each in crops(np.zeros((40, 60, 3), np.uint8), found)]
        [(11, 24, 3)]
    """
    height, width = image.shape[:2]
    if (height, width) != tuple(found.size):
        raise ValueError(f"the detections are of an image of {tuple(found.size)} (height, width), not {height, width}")
    if not 0 <= margin < np.inf:
        raise ValueError(f"margin must be at least 0, not {margin}")
    boxes = arrays_of(found).boxes.astype(np.float64)  # (D, 4)
    room = margin * np.maximum(boxes[:, 2:] - boxes[:, :2], 0)  # (D, 2) to the left and right, above and below
    first = np.clip(np.floor(boxes[:, :2] - room), 0, [width - 1, height - 1]).astype(int)
    last = np.clip(np.ceil(boxes[:, 2:] + room), first + 1, [width, height]).astype(int)
    return [image[y1:y2, x1:x2].copy() for (x1, y1), (x2, y2) in zip(first, last, strict=True)]
