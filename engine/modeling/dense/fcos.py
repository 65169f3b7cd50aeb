"""The FCOS dense stage (Tian et al., 2019): a point of each cell tells its distances to the sides of its box.

A point is the centre of a square anchor whose side is the unit of distance: one stride (NORM_REG_TARGETS) or one pixel.

Shapes: N images, L levels, R points an image, P positives, K classes, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.layers import iou_losses
from engine.modeling import box_coding
from engine.modeling.dense.stage import CenternessStage, HeadOutputs, Scale, flatten, init_head, tower


class FCOSHead(nn.Module):
    """Two towers shared by all levels, and three predictors.

    Args:
        in_channels: channels of every level.
        num_classes: K, without background.
        num_levels: L.
        num_convs: convolutions in a tower.
        deformable: whether the last convolution of a tower is a modulated deformable one.
        prior: probability of foreground that the classifier starts with.
        centerness_on_reg: centerness is read off the box tower instead of the class tower.
        exponential: distances are exp(prediction) (in pixels) instead of relu(prediction) (in strides).
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_levels: int = 5,
        num_convs: int = 4,
        deformable: bool = False,
        prior: float = 0.01,
        centerness_on_reg: bool = False,
        exponential: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.centerness_on_reg = centerness_on_reg
        self.exponential = exponential
        self.cls_tower = tower(in_channels, num_convs, deformable=deformable)
        self.bbox_tower = tower(in_channels, num_convs, deformable=deformable)
        self.cls_logits = nn.Conv2d(in_channels, num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(in_channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in range(num_levels))
        init_head(self, prior)

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Maps (N, C, H_l, W_l) -> predictions of all levels."""
        logits, codes, centerness = [], [], []
        for scale, feature in zip(self.scales, features, strict=True):
            cls = self.cls_tower(feature)
            box = self.bbox_tower(feature)
            code = scale(self.bbox_pred(box))
            logits.append(flatten(self.cls_logits(cls), self.num_classes))
            codes.append(flatten(code.float().exp() if self.exponential else F.relu(code), 4))
            centerness.append(flatten(self.centerness(box if self.centerness_on_reg else cls), 1))
        return HeadOutputs(torch.cat(logits, 1), torch.cat(codes, 1), torch.cat(centerness, 1)[..., 0])


class FCOS(CenternessStage):
    """The dense stage of FCOS.

    Args:
        iou_loss: box loss, (distances (P, 4), gt distances (P, 4)) -> (P,), in units of distance.
        thresh_joint_score: candidates have a final score above `score_thresh` (torchvision) instead of a class score.
        args, kwargs: see `CenternessStage`.
    """

    def __init__(
        self,
        *args,
        iou_loss: Callable[[Tensor, Tensor], Tensor] = iou_losses.iou,
        thresh_joint_score: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.iou_loss = iou_loss
        self.thresh_joint_score = thresh_joint_score

    def decode(self, codes: Tensor, anchors: Tensor) -> Tensor:
        return box_coding.decode_distances(codes, anchors, 1.0, self.inset)

    def box_loss(self, codes: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        return self.iou_loss(codes, box_coding.encode_distances(gt_boxes, anchors, 1.0, self.inset))

    def rank(self, cls_scores: Tensor, centerness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.thresh_joint_score:
            return super().rank(cls_scores, centerness)
        joint = cls_scores * centerness[:, None]
        idx, classes = (joint.sqrt() > self.score_thresh).nonzero(as_tuple=True)
        return idx, classes, joint[idx, classes]
