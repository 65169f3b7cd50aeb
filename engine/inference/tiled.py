"""Detection on tiles: a model looks at each view of a large image, and what it found is merged.

Which detections count is said in `data.tile_selection`.

Shapes: V views, P detections of all of them, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from engine.data import tile_selection
from engine.data.tile_selection import CUT_SCORE, clear_areas
from engine.data.tiles import Tiling
from engine.layers.voting import Merged
from engine.structures import Detections, ImageBatch

__all__ = ["CUT_SCORE", "TiledDetector", "clear_areas", "select"]


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
            images = images.unpadded()
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
    """`data.tile_selection.select` of tensors: the detections of all views that are to be merged.

    Args:
        found: in pixels of the image, not yet clipped to it.
        number: (P,) int64, the view that each was found in.
        views: (V, 4) int64, see `Tiling.views`.
    """
    arrays = (each.cpu().numpy() for each in (found.boxes, found.scores, found.labels, number))
    kept = tile_selection.select(*arrays, views, found.size, tiling)
    like = found.boxes, found.scores, found.labels
    return Detections(*(torch.from_numpy(each).to(own) for each, own in zip(kept, like, strict=True)), found.size)
