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

from engine.data.transforms import Normalize
from engine.export.candidates import Candidates, dense_candidates, gather_rows
from engine.export.suppression import LOWEST_SCORE, NO_SCORE, Suppress, suppress
from engine.export.two_stage import check_two_stage, propose, roi_candidates, suppress_by_class
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.selection import Selection


class DetectionGraph(nn.Module):
    """What `model.detect` computes, on bytes as they are read, without branches on values.

    Args:
        model: in evaluation mode.
        normalize: what the pixels become before the model sees them.

    Attributes:
        suppress: the form of the suppression, see `export.suppression`; writers may choose another one.
    """

    def __init__(self, model: GeneralizedRCNN, normalize: Normalize) -> None:
        super().__init__()
        if model.roi_heads is not None:
            check_two_stage(model.rpn, model.roi_heads)
        self.model = model
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
        pixels = self.pixels(images, sizes)
        features = self.model.backbone(pixels)
        outputs, anchors = self.model.rpn(features, (pixels.shape[2], pixels.shape[3]))
        roi_heads = self.model.roi_heads
        if roi_heads is None:
            candidates = dense_candidates(self.model.rpn, outputs, anchors, sizes)
            return detections(candidates, self.model.selection, self.suppress, outputs.logits.shape[-1])
        regions = propose(self.model.rpn, outputs, anchors, sizes, self.suppress)
        candidates = roi_candidates(roi_heads, features, regions, sizes)
        return detections(candidates, self.model.selection, suppress_by_class(self.suppress), roi_heads.num_classes)

    def pixels(self, images: Tensor, sizes: Tensor) -> Tensor:
        """What the backbone sees, (N, C, H', W') float32: normalised, zero beyond `sizes`, padded."""
        # As `Normalize` computes it, step by step, so that the bits are the same.
        planes = images.permute(0, 3, 1, 2)[:, self.channels].float()  # (N, C, H, W)
        planes = (planes if self.scale == 1 else planes / self.scale) - self.mean
        planes = planes if self.std is None else planes / self.std
        height, width = planes.shape[2], planes.shape[3]
        rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
        is_inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None]  # (N, H, W)
        planes = torch.where(is_inside[:, None], planes, 0.0)
        step = max(self.model.size_divisibility, 1)
        return F.pad(planes, (0, -width % step, 0, -height % step))


def detections(
    candidates: Candidates, selection: Selection, suppress: Suppress, num_classes: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `selection` makes of the candidates of each image; see `DetectionGraph.forward` for what is returned."""
    boxes, scores, labels = candidates.boxes, candidates.scores, candidates.labels
    is_kept = suppress(boxes, scores, labels, num_classes, selection.nms_thresh)
    ranked, order = torch.where(is_kept, scores, NO_SCORE).sort(dim=1, descending=True, stable=True)  # (N, P) both
    is_found = ranked > LOWEST_SCORE
    if selection.max_detections:
        last = torch.sym_min(selection.max_detections, ranked.shape[1]) - 1
        is_found &= ranked >= ranked.narrow(1, last, 1)  # ties with the last one stay, as in `layers.nms.keep_best`
    counts = is_found.sum(dim=1)
    most = counts.max().item()
    torch._check(most >= 0)
    torch._check(most <= ranked.shape[1])
    order, ranked = order.narrow(1, 0, most), ranked.narrow(1, 0, most)  # (N, D) both
    return gather_rows(boxes, order), ranked, labels.gather(1, order), counts
