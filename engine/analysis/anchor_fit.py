"""How the anchors of a model fit the boxes of examined data sets.

Shapes: M boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from engine.analysis.anchor_analysis import best_iou
from engine.analysis.anchor_boxes import SeenBoxes, choose_images, count_positives
from engine.data.doctor import ExaminedSet
from engine.data.doctor.case import AnchorFit
from engine.modeling.anchors import AnchorGenerator, AnchorGrid

_MOST_ANCHORS = 50_000_000
"""That are assigned, in all images together: those of 2,500 images of COCO."""


def anchor_fit(
    examined: Sequence[ExaminedSet],
    sizes: tuple[int, int],
    divisibility: int,
    generator: AnchorGenerator,
    assign: Callable[[AnchorGrid, Tensor], Tensor] | None,
    max_images: int,
    tile_size: int = 0,
) -> AnchorFit:
    """The boxes in `max_images` random images, fewer if they are very large, against the anchors.

    Args:
        sizes: short side, and limit of the long side, that images are resized to.
        divisibility: sides are padded to a multiple of this; 0 means no padding.
        generator: of the anchors; those of a model with points are no boxes, so the caller ignores their IoU.
        assign: the rule of the training; None if it cannot be asked without a model.
        tile_size: side of the tiles that are resized in place of the images; 0 for none. The images are then seen whole
            at that scale.
    """
    parts, first = [], 0
    pairs = zip(generator.cells, generator.strides, strict=True)
    per_image = sum(len(cell) * (sizes[1] / stride) ** 2 for cell, stride in pairs)
    max_images = min(max_images, max(int(_MOST_ANCHORS / per_image), 1))
    chosen = choose_images(sum(len(each.image_rows) for each in examined), max_images, 0)
    is_chosen = np.zeros(sum(len(each.image_rows) for each in examined), dtype=bool)
    is_chosen[list(chosen)] = True
    for number, each in enumerate(examined):
        boxes = each.boxes
        rows = np.flatnonzero(boxes.trainable & boxes.is_known & is_chosen[first + boxes.images])
        sides = boxes.sides[rows]  # (M, 2) width, height
        seen_sides = np.full_like(sides, tile_size) if tile_size else sides
        scales = np.minimum(sizes[0] / seen_sides.min(1), sizes[1] / seen_sides.max(1))[:, None]
        # As training sees them: clipped to the image.
        corners, far = boxes.corners[rows].clip(0, sides), boxes.far[rows].clip(0, sides)
        resized = np.floor(sides[:, ::-1] * scales)  # (M, 2) height, width
        padded = np.ceil(resized / max(divisibility, 1)) * max(divisibility, 1)
        sources = np.stack([np.full(len(rows), number), rows], axis=1)
        parts.append((np.concatenate([corners, far], 1) * scales, padded, first + boxes.images[rows], sources))
        first += len(each.image_rows)
    boxes, padded, images, sources = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    seen = SeenBoxes(boxes, padded, images, len(chosen))
    ious = best_iou(boxes, padded, generator.cells.double().numpy(), generator.strides)
    positives = count_positives(seen, generator, assign) if assign and len(boxes) else None
    return AnchorFit(ious, positives, seen.shapes, sources)
