"""Generalized focal loss (Li et al., 2020): one branch scores class and box together, another predicts a distribution
for each side of the box.

Shapes: N images, L levels, R anchors per image, P positives, K classes, B bins, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from engine import distributed
from engine.layers.quality_losses import distribution_focal_loss, quality_focal_loss_sum
from engine.modeling.anchors import AnchorGrid
from engine.modeling.arguments import MOST_LAYERS, check_counts, check_range
from engine.modeling.assign import assign_atss
from engine.modeling.box_coding import DistributionCoder
from engine.modeling.dense.arguments import check_prior, selection_of, square_anchors
from engine.modeling.dense.centerness import giou_of_boxes
from engine.modeling.dense.stage import DENSE_STAGES, SCORE_RULES, DenseParts, DenseShape, DenseStage, HeadOutputs
from engine.modeling.dense.towers import Scale, Towers, flatten, init_head, over_levels
from engine.structures import Targets

TARGET_MARGIN = 0.1
"""Targets end this far below the last bin, so that they have a bin on each side (mmdetection)."""
MOST_BINS = 1024
"""Of `reg_max`: more strides than an image has."""


class GFLHead(nn.Module):
    """Two towers shared by all levels, and two predictors.

    Args:
        in_channels: C of every level.
        num_classes: K, without background.
        num_levels: L.
        num_convs: convolutions per tower.
        num_bins: B, per side of a box.
        prior: score of every class that the classifier starts with.
        towers: what the towers are built from; with group norm unless it names another one.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_levels: int = 5,
        num_convs: int = 4,
        num_bins: int = 17,
        prior: float = 0.01,
        towers: Towers = Towers(),  # noqa: B008, it is immutable
    ) -> None:
        super().__init__()
        self.num_classes, self.num_bins = num_classes, num_bins
        self.shared_tower, self.cls_tower, self.bbox_tower = towers.build(in_channels, num_convs)
        self.cls_logits = nn.Conv2d(in_channels, num_classes, 3, padding=1)
        self.bbox_bins = nn.Conv2d(in_channels, 4 * num_bins, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(num_levels))
        init_head(self, prior)

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Maps (N, C, H_l, W_l) -> predictions of all levels; codes are (N, R, 4*B), side-major."""
        logits, codes = [], []
        shared = over_levels(self.shared_tower, features)
        cls_maps, box_maps = over_levels(self.cls_tower, shared), over_levels(self.bbox_tower, shared)
        for scale, cls, box in zip(self.scales, cls_maps, box_maps, strict=True):
            logits.append(flatten(self.cls_logits(cls), self.num_classes))
            codes.append(flatten(scale(self.bbox_bins(box)), 4 * self.num_bins))
        return HeadOutputs(torch.cat(logits, 1), torch.cat(codes, 1))


class GFL(DenseStage):
    """The dense stage of GFL.

    Args:
        parts: see `DenseParts`; its `cls_loss` takes qualities, its coder is a `DistributionCoder`.
        box_loss: (codes (P, 4*B), anchors (P, 4), gt boxes (P, 4)) -> (P,).
        reg_loss_weight: factor of the box loss.
        dfl_loss_weight: factor of the distribution focal loss.
    """

    coder: DistributionCoder

    def __init__(
        self,
        parts: DenseParts,
        box_loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        reg_loss_weight: float = 2.0,
        dfl_loss_weight: float = 0.25,
    ) -> None:
        super().__init__(parts)
        self.box_loss = box_loss
        self.reg_loss_weight, self.dfl_loss_weight = reg_loss_weight, dfl_loss_weight

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Class loss over all anchors; box loss and distribution focal loss, weighted by score, over the positives.

        An image without positives counts as one of them (mmdetection). The normalisers are averages over all processes,
        so that any split of a batch gives the same gradient.
        """
        labels, gt_boxes, positive_anchors = self.positive_targets(outputs, anchors, targets)  # (N, R), (P, 4) both
        is_positive = labels >= 0
        codes = outputs.codes[is_positive].float()  # (P, 4*B)
        weights = outputs.logits[is_positive].detach().float().sigmoid().amax(dim=1)  # (P,) of any class

        sums = torch.stack([is_positive.sum(dim=1).clamp(min=1).sum().to(weights), weights.sum()])
        num_positive, sum_weights = distributed.normalizers(sums).unbind()

        loss_cls = self.class_loss(outputs.logits, labels, codes, positive_anchors, gt_boxes)
        loss_reg = (self.box_loss(codes, positive_anchors, gt_boxes) * weights).sum()
        distances = self.coder.distances.encode(gt_boxes, positive_anchors).clamp(0, self.coder.limit - TARGET_MARGIN)
        bins = codes.reshape(-1, self.coder.num_bins)  # (P*4, B)
        loss_dfl = (distribution_focal_loss(bins, distances.flatten()).reshape(-1, 4).mean(1) * weights).sum()
        return {
            "loss_cls": loss_cls / num_positive,
            "loss_reg": self.reg_loss_weight * loss_reg / sum_weights,
            "loss_dfl": self.dfl_loss_weight * loss_dfl / sum_weights,
        }


@DENSE_STAGES.register("GFL")
def build_gfl(
    shape: DenseShape,
    towers: Towers = Towers(),  # noqa: B008, it is immutable
    num_convs: int = 4,
    reg_max: int = 16,
    topk: int = 9,
    anchor_size: float = 8.0,
    gamma: float = 2.0,
    reg_loss_weight: float = 2.0,
    dfl_loss_weight: float = 0.25,
    prior: float = 0.01,
    score_thresh: float = 0.05,
    pre_nms_top_n: int = 1000,
    nms_thresh: float = 0.6,
) -> GFL:
    """The dense stage of GFL; the defaults are the published ones.

    Args:
        towers: see `GFLHead`.
        num_convs: convolutions per tower.
        reg_max: largest distance from an anchor's centre to a side of its box, in strides.
        topk: candidates per level and box of the ATSS assigner.
        anchor_size: side of the one anchor per cell, in strides; it decides only which cells learn a box.
        gamma: focusing power of the class loss (beta in the paper).
        reg_loss_weight, dfl_loss_weight: factors of these losses.
        prior: score of every class before training.
        score_thresh, pre_nms_top_n, nms_thresh: see `Selection`.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_counts(at_most=MOST_LAYERS, num_convs=num_convs)
    check_counts(at_least=1, at_most=MOST_BINS, reg_max=reg_max)
    check_counts(at_least=1, topk=topk)
    check_range(at_least=0, gamma=gamma, reg_loss_weight=reg_loss_weight, dfl_loss_weight=dfl_loss_weight)
    check_prior(prior)
    coder = DistributionCoder(reg_max, anchor_size, shape.convention.inset)
    head = GFLHead(shape.channels, shape.num_classes, len(shape.strides), num_convs, reg_max + 1, prior, towers)
    parts = DenseParts(
        head,
        square_anchors(shape, anchor_size),
        partial(assign_atss, topk=topk),
        coder,
        partial(quality_focal_loss_sum, gamma=gamma),
        SCORE_RULES["class"],
        selection_of(shape, score_thresh, pre_nms_top_n, nms_thresh),
        drops_empty=True,
    )
    return GFL(
        parts,
        partial(giou_of_boxes, coder=coder, convention=shape.convention),
        reg_loss_weight,
        dfl_loss_weight,
    )
