"""Dense stages with centerness: ATSS (Zhang et al., 2020) and FCOS (Tian et al., 2019).

They differ in their parts only: ATSS has anchors, its own assigner and the GIoU of decoded boxes as box loss; FCOS has
points (square anchors whose side is the unit of distance: one stride or one pixel) and an IoU of distances.

Shapes: N images, L levels, A anchors per cell, R anchors per image, P positives, K classes, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import distributed
from engine.layers.losses import giou_loss
from engine.modeling.anchors import AnchorGrid
from engine.modeling.box_coding import BoxCoder
from engine.modeling.dense.stage import DenseParts, DenseStage, HeadOutputs
from engine.modeling.dense.towers import Scale, Towers, flatten, init_head, over_levels
from engine.structures import PixelConvention, Targets
from engine.structures import boxes as box_ops


def identity(codes: Tensor) -> Tensor:
    """Activation of a box branch that predicts deltas."""
    return codes


def exponential(codes: Tensor) -> Tensor:
    """Activation of a box branch that predicts distances in pixels; in float32, since float16 ends at 65,504."""
    return codes.float().exp()


class CenternessHead(nn.Module):
    """Two towers shared by all levels, and three predictors.

    Args:
        in_channels: C of every level.
        num_classes: K, without background.
        num_anchors: A.
        num_levels: L.
        num_convs: convolutions per tower.
        towers: what the towers are built from; with group norm unless it names another one.
        prior: probability of foreground that the classifier starts with.
        centerness_on_reg: centerness is predicted from the box tower instead of the class tower.
        activation: of the box branch: `identity`, `exponential`, or `F.relu` for distances in strides.
        box_bias: what the box branch starts with.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_anchors: int = 1,
        num_levels: int = 5,
        num_convs: int = 4,
        towers: Towers = Towers(),  # noqa: B008, it is immutable
        prior: float = 0.01,
        centerness_on_reg: bool = True,
        activation: Callable[[Tensor], Tensor] = identity,
        box_bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.centerness_on_reg, self.activation = centerness_on_reg, activation
        self.shared_tower, self.cls_tower, self.bbox_tower = towers.build(in_channels, num_convs)
        self.cls_logits = nn.Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        self.centerness = nn.Conv2d(in_channels, num_anchors, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(num_levels))
        init_head(self, prior)
        nn.init.constant_(self.bbox_pred.bias, box_bias)

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Maps (N, C, H_l, W_l) -> predictions of all levels."""
        logits, codes, centerness = [], [], []
        shared = over_levels(self.shared_tower, features)
        cls_maps, box_maps = over_levels(self.cls_tower, shared), over_levels(self.bbox_tower, shared)
        for scale, cls, box in zip(self.scales, cls_maps, box_maps, strict=True):
            logits.append(flatten(self.cls_logits(cls), self.num_classes))
            codes.append(flatten(self.activation(scale(self.bbox_pred(box))), 4))
            centerness.append(flatten(self.centerness(box if self.centerness_on_reg else cls), 1))
        return HeadOutputs(torch.cat(logits, 1), torch.cat(codes, 1), torch.cat(centerness, 1)[..., 0])


class CenternessStage(DenseStage):
    """A dense stage whose box loss is weighted by centerness.

    Args:
        parts: see `DenseParts`.
        box_loss: (codes (P, 4), anchors (P, 4), gt boxes (P, 4)) -> (P,): `giou_of_boxes`, `loss_of_boxes` or
            `loss_of_codes` with its last parameters bound.
        reg_loss_weight: factor of the box loss.
        weight_by_centerness: weight the box loss of a positive by its centerness, or all alike (torchvision).
        min_positives: of each image, in what class and centerness losses are divided by: 0 in the reference, 1 in
            mmdetection, where an image without boxes counts as one positive.
    """

    def __init__(
        self,
        parts: DenseParts,
        box_loss: Callable[[Tensor, Tensor, Tensor], Tensor],
        reg_loss_weight: float = 1.0,
        weight_by_centerness: bool = True,
        min_positives: int = 0,
    ) -> None:
        super().__init__(parts)
        self.box_loss = box_loss
        self.reg_loss_weight, self.weight_by_centerness = reg_loss_weight, weight_by_centerness
        self.min_positives = min_positives

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Class loss over all anchors, box loss and centerness BCE over the positives.

        The normalisers are averages over all processes, so that any split of a batch gives the same gradient.
        """
        labels, gt_boxes, positive_anchors = self.positive_targets(outputs, anchors, targets)  # (N, R), (P, 4) both
        is_positive = labels >= 0
        centerness = centerness_targets(positive_anchors, gt_boxes, anchors.convention)  # (P,)
        weights = centerness if self.weight_by_centerness else torch.ones_like(centerness)

        counted = is_positive.sum(dim=1).clamp(min=self.min_positives).sum()
        sums = torch.stack([counted.to(weights), weights.sum()])
        num_positive, sum_weights = distributed.all_reduce_mean(sums).unbind()
        num_positive = num_positive.clamp(min=1.0)  # a batch may have no object; its loss of all negatives stays

        codes = outputs.codes[is_positive].float()  # (P, 4)
        loss_cls = self.class_loss(outputs.logits, labels, codes, positive_anchors, gt_boxes)
        loss_reg = (self.box_loss(codes, positive_anchors, gt_boxes) * weights).sum()
        loss_centerness = F.binary_cross_entropy_with_logits(
            outputs.centerness[is_positive].float(), centerness, reduction="sum"
        )
        return {
            "loss_cls": loss_cls / num_positive,
            "loss_reg": self.reg_loss_weight * loss_reg / sum_weights.clamp(min=1e-6),  # 0 / 0 without positives
            "loss_centerness": loss_centerness / num_positive,
        }


def giou_of_boxes(
    codes: Tensor, anchors: Tensor, gt_boxes: Tensor, coder: BoxCoder, convention: PixelConvention
) -> Tensor:
    """Box loss of ATSS: GIoU loss (P,) of the decoded boxes.

    The reference computes it without the last pixel of a box; taking half a pixel from each side is the same.
    """
    return giou_loss(_inset(coder.decode(codes, anchors), convention), _inset(gt_boxes, convention))


def loss_of_boxes(
    codes: Tensor,
    anchors: Tensor,
    gt_boxes: Tensor,
    coder: BoxCoder,
    convention: PixelConvention,
    loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Any of `roi_losses.BOX_LOSSES` (P,), of the codes or of the decoded boxes; `giou_of_boxes` is one of them."""
    boxes = _inset(coder.decode(codes, anchors), convention)
    return loss(codes, coder.encode(gt_boxes, anchors), boxes, _inset(gt_boxes, convention))


def _inset(boxes: Tensor, convention: PixelConvention) -> Tensor:
    return boxes + boxes.new_tensor([convention.inset, convention.inset, -convention.inset, -convention.inset])


def loss_of_codes(
    codes: Tensor, anchors: Tensor, gt_boxes: Tensor, coder: BoxCoder, loss: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Box loss of FCOS: `loss` (P,) of the codes and of those that the gt boxes have, in units of distance."""
    return loss(codes, coder.encode(gt_boxes, anchors))


def centerness_targets(anchors: Tensor, gt_boxes: Tensor, convention: PixelConvention) -> Tensor:
    """How central the centre of each anchor lies in its box (FCOS, eq. 3): (P,) in [0, 1].

    Args:
        anchors, gt_boxes: (P, 4); every centre lies inside its box.
        convention: of the boxes.
    """
    centers = box_ops.centers(anchors)
    near = centers - gt_boxes[:, :2] - convention.inset  # (P, 2) to the left and top
    far = gt_boxes[:, 2:] - convention.inset - centers  # (P, 2) to the right and bottom
    ratios = torch.minimum(near, far) / torch.maximum(near, far)
    return ratios.clamp(min=0).prod(dim=1).sqrt()
