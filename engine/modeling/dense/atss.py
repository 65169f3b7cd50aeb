"""The ATSS dense stage (Zhang et al., 2020): head, box loss and what its codes mean.

Shapes: N images, L levels, A anchors a cell, R anchors an image, P positives, K classes, C channels, H W.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.layers.losses import giou_loss
from engine.modeling import box_coding
from engine.modeling.dense.stage import CenternessStage, HeadOutputs, Scale, flatten, init_head, tower
from engine.structures import Detections, ImageBatch, Targets

DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


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
        self.cls_tower = tower(in_channels, num_convs, deformable=deformable)
        self.bbox_tower = tower(in_channels, num_convs, deformable=deformable)
        self.cls_logits = nn.Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        self.centerness = nn.Conv2d(in_channels, num_anchors, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(num_levels))
        init_head(self, prior)
        if distances:
            nn.init.constant_(self.bbox_pred.bias, 4.0)

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Maps (N, C, H_l, W_l) -> predictions of all levels."""
        logits, codes, centerness = [], [], []
        for scale, feature in zip(self.scales, features, strict=True):
            cls = self.cls_tower(feature)
            box = self.bbox_tower(feature)
            code = scale(self.bbox_pred(box))
            logits.append(flatten(self.cls_logits(cls), self.num_classes))
            codes.append(flatten(F.relu(code) if self.distances else code, 4))
            centerness.append(flatten(self.centerness(box), 1))
        return HeadOutputs(torch.cat(logits, 1), torch.cat(codes, 1), torch.cat(centerness, 1)[..., 0])


class ATSS(CenternessStage):
    """The dense stage of ATSS: GIoU of the decoded boxes as box loss.

    Args:
        distance_unit: None if the head's codes are deltas (BOX), else the unit of its distances (POINT), see
            `box_coding.encode_distances`.
        reg_loss_weight: factor of the box loss.
        min_log_ratio: see `box_coding.decode_deltas`.
        score_is_product: rank candidates by class score, and score them by class score x centerness (mmdetection).
        args, kwargs: see `CenternessStage`.
    """

    def __init__(
        self,
        *args,
        distance_unit: float | None = None,
        reg_loss_weight: float = 2.0,
        min_log_ratio: float | None = None,
        score_is_product: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(*args, reg_loss_weight=reg_loss_weight, **kwargs)
        self.distance_unit = distance_unit
        self.min_log_ratio, self.score_is_product = min_log_ratio, score_is_product

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        if self.distance_unit is None:
            return box_coding.decode_deltas(codes, anchors, DELTA_WEIGHTS, self.min_log_ratio)
        return box_coding.decode_distances(codes, anchors, self.distance_unit, self.inset)

    def box_loss(self, codes: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        extent = codes.new_tensor([self.inset, self.inset, -self.inset, -self.inset])
        return giou_loss(self.decode(codes, anchors) + extent, gt_boxes + extent)

    def rank(self, cls_scores: Tensor, centerness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().rank(cls_scores, None if self.score_is_product else centerness)

    def final_scores(self, ranks: Tensor, centerness: Tensor) -> Tensor:
        return ranks * centerness if self.score_is_product else super().final_scores(ranks, centerness)


class ATSSProposals(ATSS):
    """ATSS as the first stage of a two-stage detector: one class, "object".

    Args:
        num_train, num_test: largest number of proposals of an image.
        args, kwargs: see `ATSS`.
    """

    def __init__(self, *args, num_train: int = 1000, num_test: int = 1000, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.num_train, self.num_test = num_train, num_test

    def propose(
        self, features: list[Tensor], images: ImageBatch, targets: list[Targets] | None = None
    ) -> tuple[list[Detections], dict[str, Tensor]]:
        """Proposals of each image (all of label 0), by falling score and without gradient; losses in training."""
        anchors = self.anchor_generator(features, images.tensor.shape[-2:])
        outputs = self.head(features)
        losses = {}
        if self.training:
            objects = [replace(target, labels=torch.zeros_like(target.labels)) for target in targets]
            losses = self.losses(outputs, anchors, objects)
        self.max_detections = self.num_train if self.training else self.num_test
        with torch.no_grad():
            return self.detect(outputs, anchors, images.sizes), losses
