"""Detection on tiles: a model looks at each view of a large image, and what it found is merged.

A view cuts the objects at its borders inside the image, and the model takes the parts for objects. So:

1. A detection that ends at such a border is *cut*. It is dropped if another tile shows the same place clear of its
   own borders, since that tile sees what lies beyond.
2. Other cut detections (their objects are too large for the overlap) count less: their score is multiplied by
   `CUT_SCORE`. They are dropped where a better detection of their class that is not cut covers most of them.
3. In the whole picture only objects count that tiles may not show whole; the others are too small there.
4. What is left is merged class by class.

Shapes: V views, P detections of all of them, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from engine.data.tiles import Tiling
from engine.layers.voting import Merged
from engine.structures import Detections, ImageBatch

CUT_SCORE = 0.5
COVERED = 0.5
"""The share of a cut detection that another one must cover."""
_AT_ONCE = 1 << 22  # pairs of boxes


class TiledDetector(nn.Module):
    """Takes images as read and returns merged detections; takes the place of a model in a test. It keeps no state.

    Tiles are cut, scaled and normalised one batch at a time, so an image needs little more memory than its own.

    Args:
        detector: its `detect` takes images as read (uint8 or float32, (C, H, W)) and gives detections in their
            pixels, see `inference.augment`.
        tiling: how images are cut.
        merge: boxes, scores, labels of all views -> of one image, highest score first; see `layers.voting`.
        fill: (C,) values beyond the border of images that are smaller than a tile.
        batch_size: tiles that go through the model at once.
    """

    detects_one_by_one = True
    """Images need not be of one size, nor be stacked."""

    def __init__(
        self,
        detector: nn.Module,
        tiling: Tiling,
        merge: Callable[[Tensor, Tensor, Tensor], Merged],
        fill: Sequence[float] = (0.0, 0.0, 0.0),
        batch_size: int = 1,
    ) -> None:
        super().__init__()
        self.detector, self.tiling, self.merge = detector, tiling, merge
        self.fill, self.batch_size = tuple(fill), batch_size
        self.train(detector.training)

    def detect(self, images: ImageBatch | Sequence[Tensor]) -> list[Detections]:
        """Detections of each image in its own pixels, highest score first.

        Args:
            images: N images as read (C, H_i, W_i), or a batch of such.
        """
        if isinstance(images, ImageBatch):
            images = [
                image[:, :height, :width] for image, (height, width) in zip(images.tensor, images.sizes, strict=True)
            ]
        return [self._detect_in(image) for image in images]

    forward = detect  # what a model in evaluation mode does

    def _detect_in(self, image: Tensor) -> Detections:
        size = tuple(image.shape[-2:])
        views = self.tiling.views(size)
        has_full = self.tiling.has_full(len(views))
        num_tiles = len(views) - has_full
        found: list[Detections] = []
        for start in range(0, num_tiles, self.batch_size):
            tiles = [self._tile(image, view) for view in views[start : min(start + self.batch_size, num_tiles)]]
            found += self.detector.detect(tiles)
        if has_full:
            found += self.detector.detect([image])
        number = torch.cat([torch.full((len(each),), v, device=image.device) for v, each in enumerate(found)])  # (P,)
        offsets = torch.from_numpy(views[:, [0, 1, 0, 1]].astype(np.float32)).to(image.device)  # (V, 4)
        joined = Detections.cat(found)
        whole = replace(joined, boxes=joined.boxes + offsets[number], size=size)
        kept = select(whole, number, views, self.tiling)
        return Detections(*self.merge(kept.boxes, kept.scores, kept.labels), size)

    def _tile(self, image: Tensor, view: np.ndarray) -> Tensor:
        """A tile (C, size, size) of an image (C, H, W)."""
        x1, y1, x2, y2 = view.tolist()
        part, side = image[:, y1:y2, x1:x2], self.tiling.size
        if part.shape[1:] == (side, side):
            return part
        fill = torch.tensor(self.fill, device=image.device).view(-1, 1, 1)
        tile = (fill if image.is_floating_point() else fill.round()).to(image.dtype).repeat(1, side, side)
        tile[:, : y2 - y1, : x2 - x1] = part
        return tile


def select(found: Detections, number: Tensor, views: np.ndarray, tiling: Tiling) -> Detections:
    """The detections of all views that are to be merged, cut ones with a lower score; see above.

    Args:
        found: in pixels of the image, not yet clipped to it.
        number: (P,) int64, the view that each was found in.
        views: (V, 4) int64, see `Tiling.views`.
    """
    found, number = _within_image(found, number)
    has_full, margin = tiling.has_full(len(views)), tiling.margin
    if has_full:
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        counts = (number < len(views) - 1) | (sides > tiling.reach).any(1)
        found, number = found[counts], number[counts]
    clear = clear_areas(views, found.size, margin).to(found.boxes.device)  # (V, 4)
    is_cut = ~_lies_in(found.boxes, clear[number])  # (P,)
    tiles = clear[: len(views) - 1] if has_full else clear
    cut, rest = found[is_cut], found[~is_cut]
    cut = cut[~_in_any(cut.boxes, tiles)]
    cut = replace(cut, scores=cut.scores * CUT_SCORE)
    cut = cut[~_covered(cut, rest)]
    return Detections.cat([rest, cut])


def clear_areas(views: np.ndarray, size: tuple[int, int], margin: float) -> Tensor:
    """(V, 4) float32: boxes that lie strictly within its area are not cut by a view.

    A side that is the border of the image cuts nothing, so the area has no limit there.

    Example:
        >>> clear_areas(np.array([[0, 0, 40, 30], [30, 0, 70, 30]]), (30, 70), 2.0).tolist()
        [[-inf, -inf, 38.0, inf], [32.0, -inf, inf, inf]]
    """
    height, width = size
    areas = torch.from_numpy(views.astype(np.float32))
    is_border = areas == areas.new_tensor([0.0, 0.0, width, height])
    outward = areas.new_tensor([-torch.inf, -torch.inf, torch.inf, torch.inf])
    inward = areas.new_tensor([margin, margin, -margin, -margin])
    return torch.where(is_border, outward, areas + inward)


def _within_image(found: Detections, number: Tensor) -> tuple[Detections, Tensor]:
    """Boxes clipped to the image; those in what a tile was filled up with are left out."""
    height, width = found.size
    boxes = torch.minimum(found.boxes.clamp(min=0), found.boxes.new_tensor([width, height, width, height]))
    is_inside = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return replace(found, boxes=boxes)[is_inside], number[is_inside]


def _lies_in(boxes: Tensor, areas: Tensor) -> Tensor:
    """Whether boxes (..., 4) lie strictly within areas (..., 4)."""
    return (boxes[..., :2] > areas[..., :2]).all(-1) & (boxes[..., 2:] < areas[..., 2:]).all(-1)


def _in_any(boxes: Tensor, areas: Tensor) -> Tensor:
    """(P,) whether each of `boxes` (P, 4) lies strictly within one of `areas` (V, 4)."""
    chunk = max(_AT_ONCE // len(areas), 1)
    parts = [_lies_in(part[:, None], areas[None]).any(1) for part in boxes.split(chunk)]
    return torch.cat(parts) if parts else boxes.new_zeros(0, dtype=torch.bool)


def _covered(cut: Detections, others: Detections) -> Tensor:
    """(P,) whether one of `others` of the same class, of at least the same score, covers most of each of `cut`."""
    parts = [torch.zeros(0, dtype=torch.bool, device=cut.boxes.device)]
    for rows in torch.arange(len(cut), device=cut.boxes.device).split(max(_AT_ONCE // max(len(others), 1), 1)):
        boxes = cut.boxes[rows].double()[:, None]  # (p, 1, 4)
        low = torch.maximum(boxes[..., :2], others.boxes.double()[None, :, :2])
        high = torch.minimum(boxes[..., 2:], others.boxes.double()[None, :, 2:])
        area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)  # (p, 1)
        covers = (high - low).clamp(min=0).prod(-1) >= COVERED * area
        is_rival = (others.labels[None] == cut.labels[rows, None]) & (others.scores[None] >= cut.scores[rows, None])
        parts.append((covers & is_rival).any(1))
    return torch.cat(parts)
