"""What the dense stages (ATSS, RetinaNet, FCOS) share: towers, matching, selection, the losses with centerness.

Shapes: N images, L levels, A anchors a cell, R anchors an image, P positives, K classes, C channels, H W.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import distributed
from engine.layers.deform_conv import DeformConv2d
from engine.layers.losses import focal_loss_sum
from engine.layers.norm import norm
from engine.modeling.anchors import AnchorGenerator, AnchorGrid
from engine.modeling.assign import ignore_regions
from engine.modeling.select import select_detections
from engine.structures import Detections, ImageBatch, Targets
from engine.structures import boxes as box_ops


@dataclass
class HeadOutputs:
    """Raw predictions of a batch, levels joined in the order of the anchors.

    Attributes:
        logits: (N, R, K).
        codes: (N, R, 4) deltas or distances, see `modeling.box_coding`.
        centerness: (N, R) logits; None where the head predicts none (RetinaNet).
    """

    logits: Tensor
    codes: Tensor
    centerness: Tensor | None = None


class Scale(nn.Module):
    """A learned factor, one a level."""

    def __init__(self, init: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([init]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def tower(channels: int, num_convs: int, norm_name: str = "GN", deformable: bool = False) -> nn.Sequential:
    """`num_convs` times 3x3 convolution, norm ("" for none) and ReLU; the last convolution may be deformable."""
    layers: list[nn.Module] = []
    for i in range(num_convs):
        if deformable and i == num_convs - 1:
            layers.append(DeformConv2d(channels, channels, bias=True))
        else:
            layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        if norm_name:
            layers.append(norm(norm_name, channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def init_head(head: nn.Module, prior: float) -> None:
    """Small weights everywhere; `head.cls_logits` starts with the score `prior` for every class (Lin et al., 2017)."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    for module in head.modules():
        if isinstance(module, DeformConv2d):
            module.reset_offsets()
    nn.init.constant_(head.cls_logits.bias, -math.log((1 - prior) / prior))


def flatten(x: Tensor, per_anchor: int) -> Tensor:
    """(N, A*per_anchor, H, W) -> (N, HWA, per_anchor), channels anchor-major."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, per_anchor)


class DenseStage(nn.Module):
    """A head, its anchors, what it learns and how it answers; subclasses say what codes mean and what they cost.

    Args:
        head: pyramid -> `HeadOutputs`.
        anchor_generator: anchors of the pyramid's levels.
        assign: a rule of `modeling.assign` with its parameters bound: (anchors, gt_boxes) -> matched (R,).
        pixel: 1.0 in the inclusive convention, 0.0 in the continuous one.
        focal_alpha, focal_gamma: of the focal loss.
        score_thresh: candidates have a class score above it.
        pre_nms_top_n: candidates a level and image, the best by `rank`.
        nms_thresh: see `select_detections`.
        max_detections: see `select_detections`.
    """

    def __init__(
        self,
        head: nn.Module,
        anchor_generator: AnchorGenerator,
        assign: Callable[[AnchorGrid, Tensor], Tensor],
        pixel: float = box_ops.CONTINUOUS,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        score_thresh: float = 0.05,
        pre_nms_top_n: int = 1000,
        nms_thresh: float = 0.6,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.head = head
        self.anchor_generator = anchor_generator
        self.assign = assign
        self.pixel, self.inset = pixel, pixel / 2
        self.focal_alpha, self.focal_gamma = focal_alpha, focal_gamma
        self.score_thresh, self.pre_nms_top_n = score_thresh, pre_nms_top_n
        self.nms_thresh, self.max_detections = nms_thresh, max_detections

    def forward(
        self, features: list[Tensor], images: ImageBatch, targets: list[Targets] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """Losses in training, detections otherwise."""
        anchors = self.anchor_generator(features, images.tensor.shape[-2:])
        outputs = self.head(features)
        if self.training:
            return self.losses(outputs, anchors, targets)
        return self.detect(outputs, anchors, images.sizes)

    def candidates(self, features: list[Tensor], images: ImageBatch) -> list[Detections]:
        """What `forward` suppresses and cuts to detections: the scored boxes of all levels."""
        anchors = self.anchor_generator(features, images.tensor.shape[-2:])
        return self.find_candidates(self.head(features), anchors, images.sizes)

    # -- what a subclass says ---------------------------------------------------------------------------------------

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (P, 4) of the head's `codes` (P, 4) on `anchors` (P, 4)."""
        raise NotImplementedError

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Named losses of a batch."""
        raise NotImplementedError

    # -- training ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def match(self, anchors: AnchorGrid, targets: Targets) -> tuple[Tensor, Tensor]:
        """What every anchor learns: class labels (R,) (or NEGATIVE, IGNORED) and gt boxes (R, 4), zero where none."""
        boxes, labels = targets.boxes[~targets.ignore], targets.labels[~targets.ignore]
        matched = self.assign(anchors, boxes)
        matched = ignore_regions(matched, anchors, targets.boxes[targets.ignore])
        is_positive = matched >= 0
        anchor_labels, anchor_boxes = matched.clone(), torch.zeros_like(anchors.boxes)
        anchor_labels[is_positive] = labels[matched[is_positive]]
        anchor_boxes[is_positive] = boxes[matched[is_positive]]
        return anchor_labels, anchor_boxes

    def focal_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum of the focal loss over logits (..., K) with labels (...)."""
        return focal_loss_sum(logits.flatten(0, -2).float(), labels.flatten(), self.focal_alpha, self.focal_gamma)

    # -- testing ----------------------------------------------------------------------------------------------------

    def detect(self, outputs: HeadOutputs, anchors: AnchorGrid, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Detections of each image, in the coordinates of the (resized, unpadded) image of `sizes`."""
        return [
            select_detections(candidates, self.nms_thresh, self.max_detections)
            for candidates in self.find_candidates(outputs, anchors, sizes)
        ]

    def find_candidates(
        self, outputs: HeadOutputs, anchors: AnchorGrid, sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """At most `pre_nms_top_n` scored boxes a level of each image, clipped to the image of `sizes`."""
        cls_scores = outputs.logits.float().sigmoid()  # (N, R, K)
        none = [None] * len(sizes)
        centerness = none if outputs.centerness is None else outputs.centerness.float().sigmoid()  # (N, R)
        return [
            self._find_in_image(cls_scores[i], centerness[i], outputs.codes[i].float(), anchors, size)
            for i, size in enumerate(sizes)
        ]

    def _find_in_image(
        self,
        cls_scores: Tensor,
        centerness: Tensor | None,
        codes: Tensor,
        anchors: AnchorGrid,
        size: tuple[int, int],
    ) -> Detections:
        anchor_idx, labels, ranks = [], [], []
        start = 0
        for count in anchors.num_per_level:
            level = slice(start, start + count)
            idx, classes, rank = self.rank(cls_scores[level], None if centerness is None else centerness[level])
            if len(rank) > self.pre_nms_top_n:
                rank, best = rank.topk(self.pre_nms_top_n)
                idx, classes = idx[best], classes[best]
            anchor_idx.append(idx + start)
            labels.append(classes)
            ranks.append(rank)
            start += count
        idx = torch.cat(anchor_idx)
        boxes = self.limit(self.decode(codes[idx], anchors.boxes[idx]), size)
        scores = self.final_scores(torch.cat(ranks), None if centerness is None else centerness[idx])
        return Detections(boxes, scores, torch.cat(labels), size)

    def rank(self, cls_scores: Tensor, centerness: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Anchors (P,), classes (P,) and ranks (P,) of the candidates among class scores (R, K) of a level."""
        idx, classes = (cls_scores > self.score_thresh).nonzero(as_tuple=True)
        rank = cls_scores[idx, classes]
        return idx, classes, rank if centerness is None else rank * centerness[idx]

    def final_scores(self, ranks: Tensor, centerness: Tensor | None) -> Tensor:
        """The scores that ranks (P,) mean for candidates of this centerness (P,)."""
        return ranks

    def limit(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Candidate boxes as the suppression sees them: clipped to the image."""
        return box_ops.clip(boxes, size, self.pixel)


class CenternessStage(DenseStage):
    """A dense stage whose box loss is weighted by centerness, and whose score is sqrt(class score x centerness).

    Args:
        reg_loss_weight: factor of the box loss.
        weight_by_centerness: weight the box loss of a positive by its centerness, or all alike.
        kwargs: see `DenseStage`.
    """

    def __init__(self, *args, reg_loss_weight: float = 1.0, weight_by_centerness: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.reg_loss_weight = reg_loss_weight
        self.weight_by_centerness = weight_by_centerness

    def box_loss(self, codes: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """Losses (P,) of the head's `codes` (P, 4) on positive `anchors` (P, 4)."""
        raise NotImplementedError

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Focal loss over all anchors, box loss and centerness BCE over the positives.

        The normalisers are averages over all processes, so that any split of a batch gives the same gradient.
        """
        matches = [self.match(anchors, target) for target in targets]
        labels = torch.stack([labels for labels, _ in matches])  # (N, R)
        is_positive = labels >= 0
        gt_boxes = torch.stack([boxes for _, boxes in matches])[is_positive]  # (P, 4)
        positive_anchors = anchors.boxes.expand(len(targets), -1, 4)[is_positive]
        centerness = centerness_targets(positive_anchors, gt_boxes, self.inset)  # (P,)
        weights = centerness if self.weight_by_centerness else torch.ones_like(centerness)

        sums = torch.stack([is_positive.sum().to(weights), weights.sum()])
        num_positive, sum_weights = distributed.all_reduce_mean(sums).unbind()
        num_positive = num_positive.clamp(min=1.0)

        loss_cls = self.focal_loss(outputs.logits, labels)
        loss_reg = (self.box_loss(outputs.codes[is_positive].float(), positive_anchors, gt_boxes) * weights).sum()
        loss_centerness = F.binary_cross_entropy_with_logits(
            outputs.centerness[is_positive].float(), centerness, reduction="sum"
        )
        return {
            "loss_cls": loss_cls / num_positive,
            "loss_reg": self.reg_loss_weight * loss_reg / sum_weights.clamp(min=1e-6),
            "loss_centerness": loss_centerness / num_positive,
        }

    def final_scores(self, ranks: Tensor, centerness: Tensor) -> Tensor:
        return ranks.sqrt()


def centerness_targets(anchors: Tensor, gt_boxes: Tensor, inset: float = 0.0) -> Tensor:
    """How central the centre of each anchor lies in its box (FCOS, eq. 3): (P,) in [0, 1].

    Args:
        anchors, gt_boxes: (P, 4); every centre lies inside its box.
        inset: half a pixel in the inclusive convention.
    """
    centers = box_ops.centers(anchors)
    near, far = centers - gt_boxes[:, :2] - inset, gt_boxes[:, 2:] - inset - centers  # (P, 2)
    ratios = torch.minimum(near, far) / torch.maximum(near, far)
    return ratios.clamp(min=0).prod(dim=1).sqrt()
