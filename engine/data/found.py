"""Detections of torch or of NumPy as arrays, and as what JSON can hold. Neither torch nor a registry is imported here.

Shapes: D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from engine.errors import InputError, shown

if TYPE_CHECKING:
    from engine.data.annotations import ImageId


class Found(Protocol):
    """What was found in one image: `structures.Detections` on the CPU, or `runtime.detections.Detections`.

    Attributes:
        boxes: (D, 4) float32, xyxy, in pixels of an image of `size`.
        scores: (D,) float32.
        labels: (D,) integers in 0..K-1.
        size: (height, width).
    """

    boxes: Any
    scores: Any
    labels: Any
    size: tuple[int, int]


class Arrays(NamedTuple):
    """The rows of detections as arrays: boxes (D, 4) float32, scores (D,) float32, labels (D,) int64."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def arrays_of(found: Found, image: ImageId = "") -> Arrays:
    """The rows of `found`.

    Raises:
        InputError: a box or score is not finite, as with weights that have diverged; it names `image`.
    """
    arrays = Arrays(
        np.asarray(found.boxes, np.float32).reshape(-1, 4),  # (D, 4), also of an empty list
        np.asarray(found.scores, np.float32),
        np.asarray(found.labels, np.int64),
    )
    if not (np.isfinite(arrays.boxes).all() and np.isfinite(arrays.scores).all()):
        raise InputError(
            f"image {shown(image)}: the box or score of a detection is not finite;"
            " the weights have probably diverged, train with a lower SOLVER.BASE_LR"
        )
    return arrays


def shortest(values: np.ndarray) -> list[Any]:
    """Floats as nested lists; 0.1 for the float32 that is nearest to it.

    Example:
        >>> shortest(np.float32([[0.1, 2.0]]))
        [[0.1, 2.0]]
    """
    texts = np.asarray(values, np.float32).astype(str)  # (...,) the shortest decimals of each
    return texts.astype(np.float64).tolist()


def to_dict(found: Found, class_names: Sequence[str], image: ImageId = "") -> dict[str, Any]:
    """`{"size": [height, width], "detections": [{"class", "score", "box"}, ...]}`, of what JSON can hold.

    Args:
        class_names: of labels 0..K-1.
        image: for the error of a box that is not finite.

    Example:
        >>> import types
        >>> found = types.SimpleNamespace(boxes=[[1, 2, 4.1, 6]], scores=[0.5], labels=[0], size=(10, 20))
        >>> to_dict(found, ["hole"])
        {'size': [10, 20], 'detections': [{'class': 'hole', 'score': 0.5, 'box': [1.0, 2.0, 4.1, 6.0]}]}
    """
    boxes, scores, labels = arrays_of(found, image)
    rows = zip(labels.tolist(), shortest(scores), shortest(boxes), strict=True)
    detections = [{"class": class_names[label], "score": score, "box": box} for label, score, box in rows]
    return {"size": [int(side) for side in found.size], "detections": detections}
