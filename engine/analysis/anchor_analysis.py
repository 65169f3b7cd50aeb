"""How well anchors fit the boxes of a data set, and which would fit better. NumPy only.

Shapes: M boxes, A anchors per cell, k clusters; a shape is (width, height) in pixels of the image that the model sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from tabulate import tabulate

MAX_STEPS = 100  # of k-means, which usually converges much earlier
REACH_THRESHOLDS = (0.5, 0.7)
SIZE_EDGES = (0, 16, 32, 64, 128, 256, 512, np.inf)
RATIO_EDGES = (0, 1 / 8, 1 / 4, 1 / 2, 1 / np.sqrt(2), np.sqrt(2), 2, 4, 8, np.inf)
RATIO_NAMES = ("< 1:8", "1:8", "1:4", "1:2", "1:1", "2:1", "4:1", "8:1", "> 8:1")


def shape_iou(shapes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU (M, A) of boxes of `shapes` (M, 2) and `others` (A, 2) with the same centre.

    Example:
        >>> shape_iou(np.array([[10, 10]]), np.array([[10, 5], [20, 20]])).tolist()
        [[0.5, 0.25]]
    """
    overlap = np.minimum(shapes[:, None], others[None]).prod(-1)
    return overlap / (shapes.prod(-1)[:, None] + others.prod(-1)[None] - overlap)


def best_iou(
    boxes: np.ndarray, image_sizes: np.ndarray, cells: Sequence[np.ndarray], strides: Sequence[int]
) -> np.ndarray:
    """The largest IoU (M,) of each box with any anchor of a pyramid.

    Among the anchors of one shape on a grid, the one with the nearest centre has the largest overlap.

    Args:
        boxes: (M, 4) xyxy.
        image_sizes: (M, 2) height and width of the padded image of each box.
        cells: for each level, the anchors (A, 4) of the first cell.
        strides: for each level, the distance of cells in pixels.
    """
    best = np.zeros(len(boxes))
    centers, shapes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    for cell, stride in zip(cells, strides, strict=True):
        last = np.ceil(image_sizes[:, ::-1] / stride) - 1  # (M, 2) index of the last column and row
        for anchor in np.asarray(cell, dtype=np.float64):
            origin, shape = (anchor[:2] + anchor[2:]) / 2, anchor[2:] - anchor[:2]
            nearest = np.clip(np.round((centers - origin) / stride), 0, last) * stride + origin
            distance = np.abs(centers - nearest)
            overlap = np.minimum((shapes + shape) / 2 - distance, np.minimum(shapes, shape)).clip(min=0).prod(-1)
            best = np.maximum(best, overlap / (shapes.prod(-1) + shape.prod() - overlap))
    return best


def kmeans_iou(shapes: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """Centres (k, 2) of clusters of `shapes` (M, 2) with the distance 1 - IoU (Redmon & Farhadi, 2017), sorted by area.

    Fewer than k if there are fewer different shapes.
    """
    shapes = np.asarray(shapes, dtype=np.float64)
    centers = _spread(shapes, min(k, len(np.unique(shapes, axis=0))), np.random.default_rng(seed))
    labels = None
    for _ in range(MAX_STEPS):
        nearest = shape_iou(shapes, centers).argmax(1)
        if labels is not None and np.array_equal(nearest, labels):
            break
        labels = nearest
        for j in np.unique(labels):  # the centre of an empty cluster stays where it is
            centers[j] = shapes[labels == j].mean(0)
    return centers[centers.prod(-1).argsort(kind="stable")]


def _spread(shapes: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Initial centres, each drawn with probability proportional to its squared distance to those before (k-means++)."""
    centers = [shapes[rng.integers(len(shapes))]]
    while len(centers) < k:
        distance = 1 - shape_iou(shapes, np.stack(centers)).max(1)
        weights = distance.clip(min=0) ** 2
        if not weights.any():
            break  # the remaining shapes differ only by rounding
        centers.append(shapes[rng.choice(len(shapes), p=weights / weights.sum())])
    return np.stack(centers)


def suggest(shapes: np.ndarray, num_ratios: int, num_sizes: int, seed: int = 0) -> tuple[list[float], list[float]]:
    """ASPECT_RATIOS (height / width) and ANCHOR_SIZES (square roots of areas), ascending, for boxes of `shapes` (M, 2).

    Ratios are clusters of the boxes scaled to the same area; sizes are clusters of squares with the areas of the boxes.
    """
    sides = np.sqrt(shapes.prod(-1, keepdims=True))
    units = kmeans_iou(shapes / sides, num_ratios, seed)
    squares = kmeans_iou(np.repeat(sides, 2, axis=1), num_sizes, seed)
    return sorted((units[:, 1] / units[:, 0]).tolist()), sorted(squares[:, 0].tolist())


def shares_table(shapes: np.ndarray) -> str:
    """Percentage of the boxes in each class of size and ratio."""
    return _table(shapes, lambda chosen: 100 * chosen.mean(), ".1f")


def means_table(shapes: np.ndarray, values: np.ndarray) -> str:
    """Mean of `values` (M,) over the boxes in each class of size and ratio."""
    return _table(shapes, lambda chosen: values[chosen].mean(), ".2f")


def reach_table(reached: dict[str, np.ndarray]) -> str:
    """For the best IoUs (M,) of each set of anchors: share of boxes at or above `REACH_THRESHOLDS`, and the mean."""
    rows = [
        (name, *(100 * (ious >= thresh).mean() for thresh in REACH_THRESHOLDS), ious.mean())
        for name, ious in reached.items()
    ]
    headers = ("anchors", *(f"IoU >= {thresh} (%)" for thresh in REACH_THRESHOLDS), "mean best IoU")
    return tabulate(rows, headers=headers, floatfmt=("", *[".1f"] * len(REACH_THRESHOLDS), ".3f"))


def _table(shapes: np.ndarray, value_of: Callable[[np.ndarray], float], floatfmt: str) -> str:
    """`value_of` the mask (M,) of the boxes in each class of size and ratio; blank where there are none."""
    sizes, ratios = np.sqrt(shapes.prod(-1)), shapes[:, 1] / shapes[:, 0]
    rows = []
    for low, high in pairwise(SIZE_EDGES):
        in_size = (sizes >= low) & (sizes < high)
        masks = [in_size & (ratios >= first) & (ratios < last) for first, last in pairwise(RATIO_EDGES)] + [in_size]
        cells = [value_of(mask) if mask.any() else None for mask in masks]
        rows.append((f"{low} .. {high}" if high < np.inf else f"{low} ..", *cells))
    return tabulate(rows, headers=("size \\ h:w", *RATIO_NAMES, "all"), floatfmt=floatfmt)
