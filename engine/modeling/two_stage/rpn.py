"""Region proposal network (Ren et al., 2015): where something lies, of whatever class.

Shapes: N images, L levels, A anchors a cell, R anchors an image, P proposals, S sampled anchors, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import distributed
from engine.layers.nms import class_nms
from engine.modeling import box_coding
from engine.modeling.anchors import AnchorGenerator, AnchorGrid
from engine.modeling.assign import IGNORED
from engine.modeling.matching import ignore_covered
from engine.modeling.two_stage.sampling import Candidates, Sampling, draw_seed, generator_of
from engine.registry import Registry
from engine.structures import Detections, ImageBatch, Targets
from engine.structures import boxes as box_ops

DELTA_WEIGHTS = (1.0, 1.0, 1.0, 1.0)

RPN_HEADS = Registry("RPN_HEADS")


@RPN_HEADS.register("SingleConvRPNHead")
class SingleConvRPNHead(nn.Module):
    """A 3x3 convolution shared by all levels, and two predictors.

    Args:
        in_channels: channels of every level.
        num_anchors: A.
    """

    def __init__(self, in_channels: int, num_anchors: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.cls_logits = nn.Conv2d(in_channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(in_channels, num_anchors * 4, 1)
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps (N, C, H_l, W_l) -> objectness logits (N, R), deltas (N, R, 4), in the order of the anchors."""
        logits, deltas = [], []
        for feature in features:
            hidden = F.relu(self.conv(feature))
            logits.append(self.cls_logits(hidden).permute(0, 2, 3, 1).flatten(1))  # (N, HWA)
            deltas.append(self.bbox_pred(hidden).permute(0, 2, 3, 1).reshape(len(feature), -1, 4))  # (N, HWA, 4)
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)


@dataclass(frozen=True)
class Limits:
    """How many proposals of an image are kept; 0 for no limit.

    Attributes:
        pre_nms: of a level, before the suppression.
        post_nms: of a level, after it.
        total: of all levels.
    """

    pre_nms: int
    post_nms: int
    total: int


class RPN(nn.Module):
    """The first stage: a head, its anchors, what it learns and what it proposes.

    Args:
        head: pyramid -> logits and deltas, see `SingleConvRPNHead`.
        anchor_generator: anchors of the pyramid's levels.
        match: `matching.match_boxes` with its thresholds bound: (anchors, gt boxes) -> matched, IoUs.
        sampling: the anchors of an image that the losses are of.
        box_loss: from `roi_losses.BOX_LOSSES`.
        train_limits, test_limits: how many proposals.
        nms_thresh: IoU above which the worse of two proposals of a level is dropped.
        min_size: shortest side of a proposal, pixels; empty ones are dropped in any case.
        straddle_thresh: anchors that leave the image by this many pixels or more are not trained on; -1 trains all.
        count_sampled: losses are sums divided by the number of sampled anchors, else by `sampling.num` an image.
        min_log_ratio: see `box_coding.decode_deltas`.
        pixel: 1.0 in the inclusive convention, 0.0 in the continuous one.
    """

    def __init__(
        self,
        head: nn.Module,
        anchor_generator: AnchorGenerator,
        match: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        sampling: Sampling,
        box_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
        train_limits: Limits,
        test_limits: Limits,
        nms_thresh: float = 0.7,
        min_size: float = 0.0,
        straddle_thresh: float = -1,
        count_sampled: bool = True,
        min_log_ratio: float | None = None,
        pixel: float = box_ops.CONTINUOUS,
    ) -> None:
        super().__init__()
        self.head, self.anchor_generator = head, anchor_generator
        self.match_boxes, self.sampling, self.box_loss = match, sampling, box_loss
        self.train_limits, self.test_limits = train_limits, test_limits
        self.nms_thresh, self.min_size, self.straddle_thresh = nms_thresh, min_size, straddle_thresh
        self.count_sampled, self.min_log_ratio, self.pixel = count_sampled, min_log_ratio, pixel

    def propose(
        self, features: list[Tensor], images: ImageBatch, targets: list[Targets] | None = None
    ) -> tuple[list[Detections], dict[str, Tensor]]:
        """Proposals of each image (all of label 0), by falling score and without gradient; losses in training."""
        anchors = self.anchor_generator(features, images.tensor.shape[-2:])
        logits, deltas = self.head(features)
        losses = self.losses(logits, deltas, anchors, targets) if self.training else {}
        return self.select(logits, deltas, anchors, images.sizes), losses

    # -- training ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def match(self, anchors: AnchorGrid, targets: Targets) -> tuple[Tensor, Tensor]:
        """Which gt box every anchor learns (R,) (index into those that are no ignore regions), and the IoUs (R,).

        Anchors that leave the image are ignored, and a gt box finds its best anchor among the others.
        """
        boxes = anchors.boxes
        is_used = self._is_inside(boxes, targets.size)
        matched, ious = self.match_boxes(boxes[is_used], targets.boxes[~targets.ignore])
        matched = ignore_covered(matched, boxes[is_used], targets.boxes[targets.ignore])
        all_matched = torch.full((len(boxes),), IGNORED, dtype=torch.int64, device=boxes.device)
        return all_matched.masked_scatter(is_used, matched), ious.new_zeros(len(boxes)).masked_scatter(is_used, ious)

    def _is_inside(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        if self.straddle_thresh < 0:
            return torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
        margin = self.straddle_thresh
        end = boxes.new_tensor([size[1] + self.pixel, size[0] + self.pixel]) + margin
        return (boxes[:, :2] >= -margin).all(dim=1) & (boxes[:, 2:] < end).all(dim=1)

    def losses(self, logits: Tensor, deltas: Tensor, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Objectness BCE over the sampled anchors (S), box loss over the positive ones among them.

        The normaliser is the average over all processes, so that any split of a batch gives the same gradient.
        """
        seed = draw_seed()
        losses_cls, losses_box, num_sampled = [], [], 0
        for logit, delta, target in zip(logits.float(), deltas.float(), targets, strict=True):
            matched, ious = self.match(anchors, target)
            is_object = (matched >= 0).to(logit)

            def hardness(idx: Tensor, logit: Tensor = logit, is_object: Tensor = is_object) -> Tensor:
                return F.binary_cross_entropy_with_logits(logit[idx], is_object[idx], reduction="none")

            generator = generator_of(seed, target.image_id, logit.device)
            sampled = self.sampling(Candidates(matched, ious, hardness, generator))  # (S,)
            positive = sampled[matched[sampled] >= 0]
            gt_boxes = target.boxes[~target.ignore][matched[positive]]
            losses_cls.append(hardness(sampled).sum())
            losses_box.append(self._box_losses(delta[positive], anchors.boxes[positive], gt_boxes).sum())
            num_sampled += len(sampled)
        count = num_sampled if self.count_sampled else self.sampling.num * len(targets)
        normalizer = distributed.all_reduce_mean(torch.tensor(float(count), device=logits.device)).clamp(min=1)
        return {
            "loss_objectness": torch.stack(losses_cls).sum() / normalizer,
            "loss_rpn_box_reg": torch.stack(losses_box).sum() / normalizer,
        }

    def _box_losses(self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        gt_deltas = box_coding.encode_deltas(gt_boxes, anchors, DELTA_WEIGHTS)
        return self.box_loss(deltas, gt_deltas, self._decode(deltas, anchors), gt_boxes)

    def _decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        return box_coding.decode_deltas(deltas, anchors, DELTA_WEIGHTS, self.min_log_ratio)

    # -- proposals --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def select(
        self, logits: Tensor, deltas: Tensor, anchors: AnchorGrid, sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """The best anchors of each level, decoded, clipped to the image of `sizes` and suppressed level by level."""
        limits = self.train_limits if self.training else self.test_limits
        boxes, scores, levels = [], [], []
        start = 0
        for level, count in enumerate(anchors.num_per_level):
            num = min(count, limits.pre_nms or count)
            best, idx = logits[:, start : start + count].float().topk(num, dim=1)  # (N, num)
            idx = (idx + start).flatten()
            images = torch.arange(len(logits), device=idx.device).repeat_interleave(num)
            boxes.append(self._decode(deltas[images, idx].float(), anchors.boxes[idx]).view(-1, num, 4))
            scores.append(best)
            levels.append(torch.full((num,), level, device=idx.device))
            start += count
        boxes, scores, levels = torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)
        return [self._suppress(*image, levels, limits) for image in zip(boxes, scores, sizes, strict=True)]

    def _suppress(
        self, boxes: Tensor, logits: Tensor, size: tuple[int, int], levels: Tensor, limits: Limits
    ) -> Detections:
        boxes = box_ops.clip(boxes, size, self.pixel)
        sides = boxes[:, 2:] - boxes[:, :2]
        is_large = ((sides > 0) & (sides >= self.min_size)).all(dim=1)
        boxes, logits, levels = boxes[is_large], logits[is_large], levels[is_large]
        kept = class_nms(boxes, logits, levels, self.nms_thresh)
        if limits.post_nms:
            is_of_level = F.one_hot(levels[kept], len(self.anchor_generator.strides))  # (P, L)
            rank = (is_of_level.cumsum(dim=0) * is_of_level).sum(dim=1)  # 1 for the best of its level
            kept = kept[rank <= limits.post_nms]
        kept = kept[: limits.total or None]
        return Detections(boxes[kept], logits[kept].sigmoid(), torch.zeros_like(kept), size)
