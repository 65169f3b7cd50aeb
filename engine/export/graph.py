"""A trained detector as one graph of tensor operations: from pixels to detections, in shapes that do not depend on what
is found, except for the number of rows of the result.

The model's own parts are used; only what chooses boxes by their scores has a form of its own here: where the model
leaves boxes out, the graph gives them the score `NO_SCORE`.

Shapes: N images, C channels, H W, L levels, R anchors per image, P candidates, K classes, D detections.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.data.resizing import scaling_matrix
from engine.data.transforms import Normalize
from engine.export.candidates import Candidates, dense_candidates, gather_rows, known, size_columns, smaller
from engine.export.suppression import LOWEST_SCORE, NO_SCORE, Suppress, suppress
from engine.export.two_stage import check_one_stage, check_two_stage, propose, roi_candidates, suppress_by_class
from engine.layers.score_voting import vote_in_rows
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.selection import Selection
from engine.structures import PixelConvention


class Scaling(nn.Module):
    """`data.transforms.resize_pixels` of images of one size, as two matrix products, which every runtime has.

    Args:
        size: (height, width) of the images.
        seen_size: that of the images that the model sees.
        is_rounded: images are of bytes.
    """

    def __init__(self, size: tuple[int, int], seen_size: tuple[int, int], is_rounded: bool = True) -> None:
        super().__init__()
        self.size, self.seen_size, self.is_rounded = size, seen_size, is_rounded
        for name, length, seen in zip(("rows", "columns"), size, seen_size, strict=True):
            weights = scaling_matrix(length, seen, is_rounded)
            self.register_buffer(name, torch.from_numpy(weights).float())  # (seen, length)

    @property
    def ratio_xy(self) -> tuple[float, float]:
        (height, width), (seen_height, seen_width) = self.size, self.seen_size
        return seen_width / width, seen_height / height

    def pixels(self, planes: Tensor) -> Tensor:
        """Planes (N, C, H, W) scaled; those of bytes are rounded after each direction, as torchvision does it."""
        scaled = self._rounded(planes @ self.columns.T)
        return self._rounded(self.rows @ scaled)

    def _rounded(self, planes: Tensor) -> Tensor:
        return (planes + 0.5).floor() if self.is_rounded else planes

    def sizes(self, sizes: Tensor) -> Tensor:
        """Sizes (N, 2) int64 in the scaled images; an image may be smaller than the others."""
        ratio_x, ratio_y = self.ratio_xy
        return (sizes * torch.tensor([ratio_y, ratio_x], device=sizes.device)).round().long()

    def undo(self, boxes: Tensor, sizes: Tensor, convention: PixelConvention) -> Tensor:
        """Boxes (N, D, 4) in pixels of the images before, clipped to `sizes` (N, 2)."""
        ratio_x, ratio_y = self.ratio_xy
        return convention.clip(convention.scale(boxes, (1 / ratio_x, 1 / ratio_y)), size_columns(sizes))


class DetectionGraph(nn.Module):
    """What `model.detect` computes, on bytes as they are read, without branches on values.

    Args:
        model: in evaluation mode.
        normalize: what the pixels become before the model sees them.
        scaling: of images of one fixed size, where the graph does it itself.

    Attributes:
        suppress: the form of the suppression, see `export.suppression`; writers may choose another one.
    """

    def __init__(self, model: GeneralizedRCNN, normalize: Normalize, scaling: Scaling | None = None) -> None:
        super().__init__()
        if model.roi_heads is None:
            check_one_stage(model.rpn)
        else:
            check_two_stage(model.rpn, model.roi_heads)
        self.model, self.scaling = model, scaling
        self.suppress: Suppress = suppress
        self.channels = normalize.channel_order(len(normalize.mean))
        self.scale = 1.0 if normalize.to_bgr255 else 255.0
        self.register_buffer("mean", normalize.mean)  # (C, 1, 1)
        self.register_buffer("std", normalize.std if (normalize.std != 1).any() else None)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detections of each image by falling score.

        Args:
            images: (N, H, W, C) uint8, BGR where C = 3.
            sizes: (N, 2) int64, the (height, width) of each image, beyond which its pixels are ignored.

        Returns:
            boxes (N, D, 4) float32, xyxy in pixels of the images given; scores (N, D) float32; labels (N, D) int64;
            counts (N,) int64, how many of the D rows of an image are detections.
        """
        planes = images.permute(0, 3, 1, 2)[:, self.channels].float()  # (N, C, H, W)
        if self.scaling is None:
            return self.detect(planes, sizes)
        boxes, *rest = self.detect(self.scaling.pixels(planes), self.scaling.sizes(sizes))
        convention = self.model.rpn.anchor_generator.convention
        return self.scaling.undo(boxes, sizes, convention), *rest

    def detect(self, planes: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same for pixels (N, C, H, W) float32 in 0..255 in the size and the order of channels of the model."""
        pixels = self.pixels(planes, sizes)
        features = self.model.backbone(pixels)
        outputs, anchors = self.model.rpn(features, (pixels.shape[2], pixels.shape[3]))
        roi_heads = self.model.roi_heads
        if roi_heads is None:
            candidates = dense_candidates(self.model.rpn, outputs, anchors, sizes)
            return detections(candidates, self.model.selection, self.suppress, outputs.logits.shape[-1])
        regions = propose(self.model.rpn, outputs, anchors, sizes, self.suppress)
        candidates = roi_candidates(roi_heads, features, regions, sizes)
        return detections(candidates, self.model.selection, suppress_by_class(self.suppress), roi_heads.num_classes)

    def pixels(self, planes: Tensor, sizes: Tensor) -> Tensor:
        """What the backbone sees, (N, C, H', W') float32: normalised, zero beyond `sizes`, padded."""
        # As `Normalize` computes it, step by step, so that the bits are the same.
        planes = (planes if self.scale == 1 else planes / self.scale) - self.mean
        planes = planes if self.std is None else planes / self.std
        height, width = planes.shape[2], planes.shape[3]
        rows, columns = (torch.arange(side, device=planes.device) for side in (height, width))
        is_inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None]  # (N, H, W)
        planes = torch.where(is_inside[:, None], planes, 0.0)
        step = max(self.model.size_divisibility, 1)
        down, across = (step * known((side + step - 1) // step) - side for side in (height, width))
        return F.pad(planes, (0, across, 0, down))


def detections(
    candidates: Candidates, selection: Selection, suppress: Suppress, num_classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `selection` makes of the candidates of each image; see `DetectionGraph.forward` for what is returned."""
    boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
    is_kept = suppress(boxes, scores, labels, num_classes, selection.nms_thresh)
    ranked, order = torch.where(is_kept, scores, NO_SCORE).sort(dim=1, descending=True, stable=True)  # (N, P) both
    is_found = ranked > LOWEST_SCORE
    if selection.max_detections:
        last = smaller(selection.max_detections, ranked.shape[1]) - 1
        is_found &= ranked >= ranked.narrow(1, last, 1)  # ties with the last one stay, as in `layers.nms.keep_best`
    counts = is_found.sum(dim=1)
    if not torch.jit.is_tracing():  # a trace would keep the number of its example
        most = counts.max().item()
        torch._check(most >= 0)
        torch._check(most <= ranked.shape[1])
        order, ranked = order.narrow(1, 0, most), ranked.narrow(1, 0, most)  # (N, D) both
    found, found_labels = gather_rows(boxes, order), labels.gather(1, order)
    if selection.vote_sigma:
        votes = torch.where(scores > LOWEST_SCORE, scores, 0.0)  # (N, P)
        found = vote_in_rows(found, found_labels, boxes, votes, labels, selection.vote_sigma)
    return found, ranked, found_labels, counts
