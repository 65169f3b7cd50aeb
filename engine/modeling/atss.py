"""The ATSS dense stage (Zhang et al., 2020): head, losses and selection.

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
from engine.layers.losses import focal_loss_sum, giou_loss
from engine.layers.norm import norm
from engine.modeling import box_coding
from engine.modeling.anchors import AnchorGenerator, AnchorGrid
from engine.modeling.assign import IGNORED, NEGATIVE, ignore_regions
from engine.modeling.select import select_detections
from engine.structures import Detections, ImageBatch, Targets
from engine.structures import boxes as box_ops

DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class Scale(nn.Module):
    """A learned factor, one a level."""

    def __init__(self, init: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([init]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@dataclass
class HeadOutputs:
    """Raw predictions of a batch, levels joined in the order of the anchors.

    Attributes:
        logits: (N, R, K).
        codes: (N, R, 4) deltas (BOX) or distances (POINT), see `modeling.box_coding`.
        centerness: (N, R) logits.
    """

    logits: Tensor
    codes: Tensor
    centerness: Tensor


class ATSSHead(nn.Module):
    """Two towers shared by all levels, and three predictors.

    Args:
        in_channels: channels of every level.
        num_classes: K, without background.
        num_anchors: A.
        num_levels: L.
        num_convs: convolutions in a tower.
        deformable: whether the last convolution of a tower is a modulated deformable one.
        prior: probability of foreground that the classifier starts with.
        distances: whether the box branch predicts distances (POINT), which are not negative.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_anchors: int = 1,
        num_levels: int = 5,
        num_convs: int = 4,
        deformable: bool = False,
        prior: float = 0.01,
        distances: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.distances = num_classes, distances
        self.cls_tower = self._tower(in_channels, num_convs, deformable)
        self.bbox_tower = self._tower(in_channels, num_convs, deformable)
        self.cls_logits = nn.Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        self.centerness = nn.Conv2d(in_channels, num_anchors, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(num_levels))
        self._init_weights(prior)

    @staticmethod
    def _tower(channels: int, num_convs: int, deformable: bool) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in range(num_convs):
            if deformable and i == num_convs - 1:
                conv = DeformConv2d(channels, channels, bias=True)
            else:
                conv = nn.Conv2d(channels, channels, 3, padding=1)
            layers += [conv, norm("GN", channels), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def _init_weights(self, prior: float) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, DeformConv2d):
                module.reset_offsets()
        nn.init.constant_(self.cls_logits.bias, -math.log((1 - prior) / prior))
        if self.distances:
            nn.init.constant_(self.bbox_pred.bias, 4.0)

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Maps (N, C, H_l, W_l) -> predictions of all levels."""
        logits, codes, centerness = [], [], []
        for scale, feature in zip(self.scales, features, strict=True):
            cls = self.cls_tower(feature)
            box = self.bbox_tower(feature)
            code = scale(self.bbox_pred(box))
            logits.append(_flatten(self.cls_logits(cls), self.num_classes))
            codes.append(_flatten(F.relu(code) if self.distances else code, 4))
            centerness.append(_flatten(self.centerness(box), 1))
        return HeadOutputs(torch.cat(logits, 1), torch.cat(codes, 1), torch.cat(centerness, 1)[..., 0])


def _flatten(x: Tensor, per_anchor: int) -> Tensor:
    """(N, A*per_anchor, H, W) -> (N, HWA, per_anchor), channels anchor-major."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, per_anchor)


class ATSS(nn.Module):
    """The dense stage: a head, its anchors, what it learns and how it answers.

    Args:
        head: predicts from the pyramid.
        anchor_generator: anchors of the pyramid's levels.
        assign: a rule of `modeling.assign` with its parameters bound: (anchors, gt_boxes) -> matched (R,).
        distance_unit: None if the head's codes are deltas (BOX), else the unit of its distances (POINT), see
            `box_coding.encode_distances`.
        pixel: 1.0 in the inclusive convention, 0.0 in the continuous one.
        focal_alpha, focal_gamma: of the focal loss.
        reg_loss_weight: factor of the box loss.
        score_thresh: candidates have a class score above it.
        pre_nms_top_n: candidates a level and image, ranked by class score x centerness.
        nms_thresh: see `select_detections`.
        max_detections: see `select_detections`.
    """

    def __init__(
        self,
        head: ATSSHead,
        anchor_generator: AnchorGenerator,
        assign: Callable[[AnchorGrid, Tensor], Tensor],
        distance_unit: float | None = None,
        pixel: float = box_ops.CONTINUOUS,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        reg_loss_weight: float = 2.0,
        score_thresh: float = 0.05,
        pre_nms_top_n: int = 1000,
        nms_thresh: float = 0.6,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        self.head = head
        self.anchor_generator = anchor_generator
        self.assign = assign
        self.distance_unit = distance_unit
        self.pixel, self.inset = pixel, pixel / 2
        self.focal_alpha, self.focal_gamma = focal_alpha, focal_gamma
        self.reg_loss_weight = reg_loss_weight
        self.score_thresh, self.pre_nms_top_n = score_thresh, pre_nms_top_n
        self.nms_thresh, self.max_detections = nms_thresh, max_detections

    def forward(
        self, features: list[Tensor], images: ImageBatch, targets: list[Targets] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """Losses in training, detections otherwise."""
        anchors = self.anchor_generator(features)
        outputs = self.head(features)
        if self.training:
            return self.losses(outputs, anchors, targets)
        return self.detect(outputs, anchors, images.sizes)

    def candidates(self, features: list[Tensor], images: ImageBatch) -> list[Detections]:
        """What `forward` suppresses and cuts to detections: the scored boxes of all levels."""
        return self.find_candidates(self.head(features), self.anchor_generator(features), images.sizes)

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (P, 4) of the head's `codes` (P, 4) on `anchors` (P, 4)."""
        if self.distance_unit is None:
            return box_coding.decode_deltas(codes, anchors, DELTA_WEIGHTS)
        return box_coding.decode_distances(codes, anchors, self.distance_unit, self.inset)

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

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Focal loss over all anchors, GIoU loss weighted by centerness and centerness BCE over the positives.

        The normalisers are averages over all processes, so that any split of a batch gives the same gradient.
        """
        matches = [self.match(anchors, target) for target in targets]
        labels = torch.stack([labels for labels, _ in matches])  # (N, R)
        is_positive = labels >= 0
        gt_boxes = torch.stack([boxes for _, boxes in matches])[is_positive]  # (P, 4)
        positive_anchors = anchors.boxes.expand(len(targets), -1, 4)[is_positive]
        boxes = self.decode(outputs.codes[is_positive].float(), positive_anchors)
        centerness = centerness_targets(positive_anchors, gt_boxes, self.inset)  # (P,)

        sums = torch.stack([is_positive.sum().to(centerness), centerness.sum()])
        num_positive, sum_centerness = distributed.all_reduce_mean(sums).unbind()
        num_positive = num_positive.clamp(min=1.0)

        loss_cls = focal_loss_sum(
            outputs.logits.flatten(0, 1).float(),
            labels.flatten(),
            self.focal_alpha,
            self.focal_gamma,
        )
        extent = boxes.new_tensor([self.inset, self.inset, -self.inset, -self.inset])
        loss_reg = (giou_loss(boxes + extent, gt_boxes + extent) * centerness).sum()
        loss_centerness = F.binary_cross_entropy_with_logits(
            outputs.centerness[is_positive].float(), centerness, reduction="sum"
        )
        return {
            "loss_cls": loss_cls / num_positive,
            "loss_reg": self.reg_loss_weight * loss_reg / sum_centerness.clamp(min=1e-6),
            "loss_centerness": loss_centerness / num_positive,
        }

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
        centerness = outputs.centerness.float().sigmoid()  # (N, R)
        return [
            self._find_in_image(cls_scores[i], centerness[i], outputs.codes[i].float(), anchors, size)
            for i, size in enumerate(sizes)
        ]

    def _find_in_image(
        self,
        cls_scores: Tensor,
        centerness: Tensor,
        codes: Tensor,
        anchors: AnchorGrid,
        size: tuple[int, int],
    ) -> Detections:
        anchor_idx, labels, ranks = [], [], []
        start = 0
        for count in anchors.num_per_level:
            level = slice(start, start + count)
            idx, classes = (cls_scores[level] > self.score_thresh).nonzero(as_tuple=True)
            rank = cls_scores[level][idx, classes] * centerness[level][idx]
            if len(rank) > self.pre_nms_top_n:
                rank, best = rank.topk(self.pre_nms_top_n)
                idx, classes = idx[best], classes[best]
            anchor_idx.append(idx + start)
            labels.append(classes)
            ranks.append(rank)
            start += count
        idx = torch.cat(anchor_idx)
        boxes = box_ops.clip(self.decode(codes[idx], anchors.boxes[idx]), size, self.pixel)
        return Detections(boxes, torch.cat(ranks).sqrt(), torch.cat(labels), size)


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


__all__ = ["ATSS", "ATSSHead", "HeadOutputs", "IGNORED", "NEGATIVE", "centerness_targets"]
