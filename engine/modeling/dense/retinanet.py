"""The RetinaNet dense stage (Lin et al., 2017): focal loss over anchors of several sizes and ratios, no centerness.

Shapes: N images, L levels, A anchors per cell, R anchors per image, P positives, K classes, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from engine import distributed
from engine.modeling.anchors import AnchorGrid
from engine.modeling.dense.stage import DenseParts, DenseStage, HeadOutputs
from engine.modeling.dense.towers import Towers, flatten, init_head, over_levels
from engine.modeling.two_stage.roi_losses import smooth_l1
from engine.registry import Registry
from engine.structures import Targets

NORMALIZERS = Registry("NORMALIZERS")
"""By the name in `MODEL.RETINANET.LOSS_NORMALIZER`: (reg_weight: float) -> module that maps the positives of each
image (N,) to what the class and box loss sums of each image are divided by, (N,) both."""


class RetinaNetHead(nn.Module):
    """Two towers shared by all levels, and two predictors.

    Args:
        in_channels: channels of every level.
        num_classes: K, without background.
        num_anchors: A.
        num_convs: convolutions in a tower.
        prior: probability of foreground that the classifier starts with.
        norm_name: norm in the towers (`layers.norm`), "" for none; `towers` may name another one.
        towers: what the towers are built from.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_anchors: int = 9,
        num_convs: int = 4,
        prior: float = 0.01,
        norm_name: str = "",
        towers: Towers = Towers(),  # noqa: B008, it is immutable
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.shared_tower, self.cls_tower, self.bbox_tower = towers.build(in_channels, num_convs, norm_name)
        self.cls_logits = nn.Conv2d(in_channels, num_anchors * num_classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(in_channels, num_anchors * 4, 3, padding=1)
        init_head(self, prior)

    def forward(self, features: list[Tensor]) -> HeadOutputs:
        """Maps (N, C, H_l, W_l) -> predictions of all levels."""
        shared = over_levels(self.shared_tower, features)
        logits = [flatten(self.cls_logits(x), self.num_classes) for x in over_levels(self.cls_tower, shared)]
        codes = [flatten(self.bbox_pred(x), 4) for x in over_levels(self.bbox_tower, shared)]
        return HeadOutputs(torch.cat(logits, 1), torch.cat(codes, 1))


class RetinaNet(DenseStage):
    """The dense stage of RetinaNet: by default smooth L1 of the deltas as box loss.

    Args:
        parts: see `DenseParts`.
        reg_beta: error at which the smooth L1 loss turns from square to straight; 0 is L1.
        normalizer: see `NORMALIZERS`; by default the reference's.
        box_loss: from `roi_losses.BOX_LOSSES`, instead of smooth L1.
    """

    def __init__(
        self,
        parts: DenseParts,
        reg_beta: float = 0.11,
        normalizer: nn.Module | None = None,
        box_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(parts)
        self.box_loss = box_loss or partial(smooth_l1, beta=reg_beta)
        self.normalizer = normalizer or positives()

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Class loss over all anchors that are not ignored, box loss over the positives."""
        labels, gt_boxes = self.assign_targets(outputs, anchors, targets)  # (N, R), (N, R, 4)
        is_positive = labels >= 0
        sums_cls, sums_reg = [], []
        # Image by image, since a normaliser may divide the sums of each image by a number of its own.
        for i in range(len(targets)):
            codes = outputs.codes[i][is_positive[i]].float()  # (P, 4)
            positive_anchors, gt = anchors.boxes[is_positive[i]], gt_boxes[i][is_positive[i]]  # (P, 4) both
            gt_codes, boxes = self.coder.encode(gt, positive_anchors), self.coder.decode(codes, positive_anchors)
            sums_cls.append(self.class_loss(outputs.logits[i], labels[i], codes, positive_anchors, gt))
            sums_reg.append(self.box_loss(codes, gt_codes, boxes, gt).sum())
        divisor_cls, divisor_reg = self.normalizer(is_positive.sum(dim=1).to(sums_cls[0]))
        return {
            "loss_cls": (torch.stack(sums_cls) / divisor_cls).sum(),
            "loss_reg": (torch.stack(sums_reg) / divisor_reg).sum(),
        }


class BatchNormalizer(nn.Module):
    """The reference's: class losses by positives + images of the batch, box losses by positives x `reg_weight`.

    The figures are averages over all processes, so that any split of a batch gives the same gradient.
    """

    def __init__(self, reg_weight: float = 4.0) -> None:
        super().__init__()
        self.reg_weight = reg_weight

    def forward(self, num_positive: Tensor) -> tuple[Tensor, Tensor]:
        batch = torch.stack([num_positive.sum(), num_positive.new_tensor(len(num_positive))])
        total, num_images = distributed.all_reduce_mean(batch).unbind()
        return (total + num_images).expand_as(num_positive), (total * self.reg_weight).clamp(min=1).expand_as(
            num_positive
        )


class MovingAverageNormalizer(nn.Module):
    """detectron2's: both losses by an exponential average of the positives of a batch, moved in training only."""

    def __init__(self, start: float = 100.0, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("average", torch.tensor(float(start)))

    def forward(self, num_positive: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            total = distributed.all_reduce_mean(num_positive.sum()).clamp(min=1)
            self.average.lerp_(total.to(self.average), 1 - self.momentum)
        divisor = self.average.clone().expand_as(num_positive)
        return divisor, divisor


class ImageNormalizer(nn.Module):
    """torchvision's: both losses of an image by its own positives, then the mean over the images."""

    def forward(self, num_positive: Tensor) -> tuple[Tensor, Tensor]:
        divisor = num_positive.clamp(min=1) * len(num_positive)
        return divisor, divisor


@NORMALIZERS.register("positives")
def positives(reg_weight: float = 4.0) -> nn.Module:
    return BatchNormalizer(reg_weight)


@NORMALIZERS.register("moving_average")
def moving_average(reg_weight: float = 4.0) -> nn.Module:
    return MovingAverageNormalizer()


@NORMALIZERS.register("per_image")
def per_image(reg_weight: float = 4.0) -> nn.Module:
    return ImageNormalizer()
