"""VarifocalNet (Zhang et al., 2021): scores that are the IoU of the box, from features sampled at nine points of a
first box (a star), which also refine it.

Shapes: N images, L levels, R anchors per image, P positives, K classes, C channels, H W.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from engine import distributed
from engine.layers.deform_conv import deformed
from engine.layers.quality_losses import varifocal_loss_sum
from engine.modeling.anchors import AnchorGrid
from engine.modeling.arguments import MOST_LAYERS, check_counts, check_range
from engine.modeling.assign import assign_atss
from engine.modeling.box_coding import DistanceCoder
from engine.modeling.dense.arguments import check_prior, selection_of, square_anchors
from engine.modeling.dense.centerness import giou_of_boxes
from engine.modeling.dense.stage import DENSE_STAGES, SCORE_RULES, DenseParts, DenseShape, DenseStage, HeadOutputs
from engine.modeling.dense.towers import Scale, Towers, flatten, init_head, over_levels
from engine.structures import Targets

FIRST_CODES = "first_codes"
"""Name of the distances before refinement in `HeadOutputs.extra`."""


class VFNetHead(nn.Module):
    """Two towers shared by all levels, a first box, and from its star the refined box and the scores.

    Args:
        in_channels: C of every level.
        num_classes: K, without background.
        num_levels: L.
        num_convs: convolutions per tower.
        unit: strides in one unit of what the first box branch predicts the logarithm of.
        star_gradient: factor of the gradient that reaches the first box through the star.
        prior: score of every class that the classifier starts with.
        towers: what the towers are built from; with group norm unless it names another one.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_levels: int = 5,
        num_convs: int = 3,
        unit: float = 8.0,
        star_gradient: float = 0.1,
        prior: float = 0.01,
        towers: Towers = Towers(),  # noqa: B008, it is immutable
    ) -> None:
        super().__init__()
        self.num_classes, self.unit, self.star_gradient = num_classes, unit, star_gradient
        self.shared_tower, self.cls_tower, self.bbox_tower = towers.build(in_channels, num_convs)
        self.first_tower = towers.layers(in_channels, 1)
        self.first_pred = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(num_levels))
        self.bbox_star = DeformConv2d(in_channels, in_channels, 3, padding=1, bias=False)
        self.bbox_pred = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.scales_refined = nn.ModuleList(Scale() for _ in range(num_levels))
        self.cls_star = DeformConv2d(in_channels, in_channels, 3, padding=1, bias=False)
        self.cls_logits = nn.Conv2d(in_channels, num_classes, 3, padding=1)
        init_head(self, prior)
        for star in (self.bbox_star, self.cls_star):  # no nn.Conv2d, which `init_head` looks for
            nn.init.normal_(star.weight, std=0.01)

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Maps (N, C, H_l, W_l) -> predictions of all levels; codes are distances in strides."""
        logits, codes, first_codes = [], [], []
        shared = over_levels(self.shared_tower, features)
        cls_maps, box_maps = over_levels(self.cls_tower, shared), over_levels(self.bbox_tower, shared)
        maps = zip(cls_maps, box_maps, over_levels(self.first_tower, box_maps), strict=True)
        for (cls, box, first), scale, scale_refined in zip(maps, self.scales, self.scales_refined, strict=True):
            # exp() in float32, since float16 ends at 65,504.
            first = scale(self.first_pred(first)).float().exp() * self.unit  # (N, 4, H_l, W_l)
            offsets = star_offsets(self.star_gradient * first + (1 - self.star_gradient) * first.detach())
            box = F.relu(sample_star(self.bbox_star, box, offsets))
            cls = F.relu(sample_star(self.cls_star, cls, offsets))
            refined = scale_refined(self.bbox_pred(box)).float().exp() * first.detach()
            logits.append(flatten(self.cls_logits(cls), self.num_classes))
            codes.append(flatten(refined, 4))
            first_codes.append(flatten(first, 4))
        return HeadOutputs(torch.cat(logits, 1), torch.cat(codes, 1), extra={FIRST_CODES: torch.cat(first_codes, 1)})


def star_offsets(distances: Tensor) -> Tensor:
    """How far each tap of a 3x3 convolution moves to lie on a corner, the middle of a side or the centre of a box.

    Args:
        distances: (N, 4, H, W) from the cell to the left, top, right and bottom side, in cells.

    Returns:
        (N, 18, H, W), dy and dx of each tap, row by row (section 3.3 of the paper).
    """
    left, top, right, bottom = distances.unbind(dim=1)
    center = torch.zeros_like(left)
    # Without offsets the taps lie one cell above, on and below the centre, and likewise across.
    ys, xs = (1 - top, center, bottom - 1), (1 - left, center, right - 1)
    return torch.stack([offset for y in ys for x in xs for offset in (y, x)], dim=1)


def sample_star(conv: DeformConv2d, x: Tensor, offsets: Tensor) -> Tensor:
    """`conv(x, offsets)` in the type of its weights even under autocast: bfloat16 would round offsets of 100 cells.

    Cells with an offset that is not a number become NaN, see `deformed`.
    """
    weight = conv.weight
    with torch.autocast(x.device.type, enabled=False):
        return deformed(x.to(weight.dtype), offsets.to(weight.dtype), weight, None, conv.stride, conv.padding)


class VFNet(DenseStage):
    """The dense stage of VarifocalNet.

    Args:
        parts: see `DenseParts`; its `cls_loss` takes qualities.
        first_loss_weight: factor of the loss of the first box.
        reg_loss_weight: factor of the loss of the refined box.
    """

    def __init__(self, parts: DenseParts, first_loss_weight: float = 1.5, reg_loss_weight: float = 2.0) -> None:
        super().__init__(parts)
        self.first_loss_weight, self.reg_loss_weight = first_loss_weight, reg_loss_weight

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Class loss over all anchors; GIoU of both boxes over the positives, weighted by their IoU.

        The normalisers are averages over all processes, so that any split of a batch gives the same gradient.
        """
        labels, gt_boxes, positive_anchors = self.positive_targets(outputs, anchors, targets)  # (N, R), (P, 4) both
        is_positive = labels >= 0
        first_codes, codes = outputs.extra[FIRST_CODES][is_positive].float(), outputs.codes[is_positive].float()

        first_weights = self.qualities(first_codes, positive_anchors, gt_boxes)  # (P,)
        weights = self.qualities(codes, positive_anchors, gt_boxes)  # (P,)
        sums = torch.stack([is_positive.sum().to(weights), first_weights.sum(), weights.sum()])
        num_positive, sum_first, sum_weights = distributed.normalizers(sums).unbind()

        box_loss = partial(giou_of_boxes, coder=self.coder, convention=anchors.convention)
        loss_first = (box_loss(first_codes, positive_anchors, gt_boxes) * first_weights).sum()
        loss_reg = (box_loss(codes, positive_anchors, gt_boxes) * weights).sum()
        loss_cls = self.cls_loss(outputs.logits.float(), labels, qualities=weights)
        return {
            "loss_cls": loss_cls / num_positive,
            "loss_reg": self.reg_loss_weight * loss_reg / sum_weights,
            "loss_reg_first": self.first_loss_weight * loss_first / sum_first,
        }


@DENSE_STAGES.register("VFNET")
def build_vfnet(
    shape: DenseShape,
    towers: Towers = Towers(),  # noqa: B008, it is immutable
    num_convs: int = 3,
    topk: int = 9,
    anchor_size: float = 8.0,
    alpha: float = 0.75,
    gamma: float = 2.0,
    first_loss_weight: float = 1.5,
    reg_loss_weight: float = 2.0,
    star_gradient: float = 0.1,
    prior: float = 0.01,
    score_thresh: float = 0.05,
    pre_nms_top_n: int = 1000,
    nms_thresh: float = 0.6,
) -> VFNet:
    """The dense stage of VarifocalNet; the defaults are the published ones.

    Args:
        towers: see `VFNetHead`.
        num_convs: convolutions per tower.
        topk: candidates per level and box of the ATSS assigner.
        anchor_size: side of the one anchor per cell and size that predicted boxes start from, in strides.
        alpha, gamma: weight and focusing power of negatives in the class loss.
        first_loss_weight, reg_loss_weight: factors of the losses of the first and of the refined box.
        star_gradient: factor of the gradient that reaches the first box through the star.
        prior: score of every class before training.
        score_thresh, pre_nms_top_n, nms_thresh: see `Selection`.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_counts(at_most=MOST_LAYERS, num_convs=num_convs)
    check_counts(at_least=1, topk=topk)
    check_range(at_least=0, gamma=gamma, first_loss_weight=first_loss_weight, reg_loss_weight=reg_loss_weight)
    check_range(at_least=0, at_most=1, alpha=alpha, star_gradient=star_gradient)
    check_prior(prior)
    sizes = shape.channels, shape.num_classes, len(shape.strides)
    parts = DenseParts(
        VFNetHead(*sizes, num_convs, anchor_size, star_gradient, prior, towers),
        square_anchors(shape, anchor_size),
        partial(assign_atss, topk=topk),
        DistanceCoder(anchor_size, shape.convention.inset),
        partial(varifocal_loss_sum, alpha=alpha, gamma=gamma),
        SCORE_RULES["class"],
        selection_of(shape, score_thresh, pre_nms_top_n, nms_thresh),
        drops_empty=True,
    )
    return VFNet(parts, first_loss_weight, reg_loss_weight)
