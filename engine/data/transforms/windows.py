"""What becomes of pixels and boxes when a part of an image is cut out, hidden or laid onto another image.

A box of which less than `min_visibility` of the area remains becomes an ignore region: too little of the object is
there to be learnt, and it is no background either. Ignore regions stay what they are and are cut like boxes.

Windows are (x1, y1, x2, y2) in whole pixels. Shapes: M boxes, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine.structures import Targets
from engine.structures import boxes as box_ops

Window = tuple[int, int, int, int]

MEAN_FILL = -1.0
"""As a fill: the mean of the image, channel by channel."""


def crop(image: Tensor, targets: Targets, window: Window, min_visibility: float) -> tuple[Tensor, Targets]:
    """The part of the image inside `window`, which lies within the image."""
    x1, y1, x2, y2 = window
    return image[:, y1:y2, x1:x2], crop_targets(targets, window, min_visibility)


def crop_targets(targets: Targets, window: Window, min_visibility: float) -> Targets:
    """The targets inside `window`, in its pixels; those wholly outside are dropped.

    Example:
        >>> boxes, ignore = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([False])
        >>> cut = crop_targets(Targets(boxes, torch.tensor([0]), ignore, 1, (10, 20)), (6, 0, 20, 10), 0.5)
        >>> cut.boxes.tolist(), cut.ignore.tolist()
        ([[0.0, 0.0, 4.0, 10.0]], [True])
    """
    x1, y1, x2, y2 = window
    lowest = targets.boxes.new_tensor([x1, y1, x1, y1])
    highest = targets.boxes.new_tensor([x2, y2, x2, y2])
    inside = torch.minimum(torch.maximum(targets.boxes, lowest), highest)  # (M, 4)
    share = box_ops.area(inside) / box_ops.area(targets.boxes).clamp(min=1e-6)  # (M,)
    cut = replace(
        targets, boxes=inside - lowest, ignore=targets.ignore | (share < min_visibility), size=(y2 - y1, x2 - x1)
    )
    return cut[(inside[:, 2:] > inside[:, :2]).all(dim=1)]


def shift(targets: Targets, x: float, y: float, size: tuple[int, int]) -> Targets:
    """The targets moved by (x, y), in an image of `size` (height, width)."""
    return replace(targets, boxes=targets.boxes + targets.boxes.new_tensor([x, y, x, y]), size=size)


def hide(targets: Targets, windows: Sequence[Window], min_visibility: float) -> Targets:
    """The targets of an image of which `windows` show something else now."""
    if not len(targets) or not windows:
        return targets
    hidden = torch.zeros(targets.size, dtype=torch.bool)  # (H, W)
    for x1, y1, x2, y2 in windows:
        hidden[y1:y2, x1:x2] = True
    visible = torch.ones(len(targets))  # (M,)
    corners = torch.cat([targets.boxes[:, :2].floor(), targets.boxes[:, 2:].ceil()], dim=1).long().tolist()
    for row, (x1, y1, x2, y2) in enumerate(corners):
        part = hidden[max(y1, 0) : y2, max(x1, 0) : x2]
        if part.numel():
            visible[row] = 1 - part.float().mean()
    targets = replace(targets, ignore=targets.ignore | (visible < min_visibility))
    return targets[visible > 0]


def fill_value(image: Tensor, fill: float) -> Tensor:
    """(C, 1, 1) in the dtype of `image`: the level `fill` in 0..255, or the means of its channels for `MEAN_FILL`."""
    if fill == MEAN_FILL:
        value = image.to(torch.float32).mean(dim=(1, 2), keepdim=True)
    else:
        value = torch.full((image.shape[0], 1, 1), float(fill))
    return to_dtype(value, image.dtype)


def to_dtype(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels in 0..255 as uint8 (rounded) or float32."""
    if pixels.dtype == dtype:
        return pixels
    return pixels.round().clamp(0, 255).to(dtype) if dtype == torch.uint8 else pixels.to(dtype)


def common_dtype(images: Sequence[Tensor]) -> list[Tensor]:
    """The images in uint8 if all are, else all in float32, so that none loses what lies between its levels."""
    dtype = torch.uint8 if all(image.dtype == torch.uint8 for image in images) else torch.float32
    return [to_dtype(image, dtype) for image in images]
