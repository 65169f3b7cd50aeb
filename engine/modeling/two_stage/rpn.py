"""Region proposal network (Ren et al., 2015): class-agnostic object proposals.

Shapes: N images, L levels, A anchors per cell, R anchors per image, P proposals, S sampled anchors, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import distributed
from engine.layers.nms import class_nms
from engine.modeling.anchors import AnchorGenerator, AnchorGrid
from engine.modeling.assign import IGNORED, BoxMatcher, ignore_covered
from engine.modeling.box_coding import BoxCoder
from engine.modeling.two_stage.sampling import Pool, Sampling, draw_seed, generator_of
from engine.registry import Registry
from engine.structures import Detections, Targets

RPN_HEADS = Registry("RPN_HEADS")
"""(in_channels: int, num_anchors: int) -> head, by the name in `MODEL.RPN.RPN_HEAD`; see `SingleConvRPNHead`."""

Outputs = tuple[Tensor, Tensor]
"""Objectness logits (N, R) and deltas (N, R, 4), in the order of the anchors."""


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

    def forward(self, features: list[Tensor]) -> Outputs:
        """Maps (N, C, H_l, W_l) -> objectness logits (N, R), deltas (N, R, 4), in the order of the anchors."""
        logits, deltas = [], []
        for feature in features:
            hidden = F.relu(self.conv(feature))
            logits.append(self.cls_logits(hidden).permute(0, 2, 3, 1).flatten(1))  # (N, HWA)
            deltas.append(self.bbox_pred(hidden).permute(0, 2, 3, 1).reshape(feature.shape[0], -1, 4))  # (N, HWA, 4)
        return torch.cat(logits, dim=1), torch.cat(deltas, dim=1)


@dataclass(frozen=True)
class ProposalRule:
    """Which anchors become proposals of an image; numbers are 0 for no limit.

    Attributes:
        pre_nms: per level, before the suppression.
        post_nms: per level, after it.
        total: of all levels together.
        nms_thresh: IoU above which the worse of two proposals of a level is dropped.
        min_size: shortest side of a proposal, pixels; empty ones are dropped in any case.
    """

    pre_nms: int
    post_nms: int
    total: int
    nms_thresh: float = 0.7
    min_size: float = 0.0


class RPN(nn.Module):
    """The first stage: a head, its anchors, what it learns and what it proposes.

    Args:
        head: pyramid -> logits and deltas, see `SingleConvRPNHead`.
        anchor_generator: anchors of the pyramid's levels.
        matcher: which gt box an anchor learns.
        sampling: the anchors of an image that the losses are computed on.
        coder: what the deltas mean.
        box_loss: from `roi_losses.BOX_LOSSES`.
        train_rule, test_rule: which anchors become proposals.
        straddle_thresh: anchors that leave the image by this many pixels or more are not trained on; -1 trains all.
        count_sampled: losses are sums divided by the number of sampled anchors, else by `sampling.num` per image.
    """

    def __init__(
        self,
        head: nn.Module,
        anchor_generator: AnchorGenerator,
        matcher: BoxMatcher,
        sampling: Sampling,
        coder: BoxCoder,
        box_loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
        train_rule: ProposalRule,
        test_rule: ProposalRule,
        straddle_thresh: float = -1,
        count_sampled: bool = True,
    ) -> None:
        super().__init__()
        self.head, self.anchor_generator = head, anchor_generator
        self.matcher, self.sampling, self.coder, self.box_loss = matcher, sampling, coder, box_loss
        self.train_rule, self.test_rule = train_rule, test_rule
        self.straddle_thresh, self.count_sampled = straddle_thresh, count_sampled

    def forward(self, features: list[Tensor], image_size: tuple[int, int]) -> tuple[Outputs, AnchorGrid]:
        """Predictions for a pyramid of images that were padded to `image_size` (height, width), and their anchors."""
        return self.head(features), self.anchor_generator(features, image_size)

    # -- training ---------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def assign_in_image(self, anchors: AnchorGrid, targets: Targets) -> tuple[Tensor, Tensor]:
        """Which gt box every anchor learns (R,) (index into those that are not ignored), and the IoUs (R,).

        Anchors that leave the image are ignored, and a gt box finds its best anchor among the others.
        """
        boxes = anchors.boxes
        is_used = self._is_inside(anchors, targets.size)
        matched, ious = self.matcher(boxes[is_used], targets.boxes[~targets.ignore])
        matched = ignore_covered(matched, boxes[is_used], targets.boxes[targets.ignore])
        all_matched = torch.full((len(boxes),), IGNORED, dtype=torch.int64, device=boxes.device)
        return all_matched.masked_scatter(is_used, matched), ious.new_zeros(len(boxes)).masked_scatter(is_used, ious)

    def _is_inside(self, anchors: AnchorGrid, size: tuple[int, int]) -> Tensor:
        boxes = anchors.boxes
        if self.straddle_thresh < 0:
            return torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
        margin = self.straddle_thresh
        # The reference compares the last pixel of an anchor with the size, ours ends one pixel further.
        end = boxes.new_tensor([size[1], size[0]]) + anchors.convention.extent + margin
        return (boxes[:, :2] >= -margin).all(dim=1) & (boxes[:, 2:] < end).all(dim=1)

    def losses(self, outputs: Outputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Objectness BCE over the sampled anchors (S), box loss over the positive ones among them.

        The normaliser is the average over all processes, so that any split of a batch gives the same gradient.
        """
        seed = draw_seed()
        losses_cls, losses_box, num_sampled = [], [], 0
        for logit, delta, target in zip(*(each.float() for each in outputs), targets, strict=True):
            matched, ious = self.assign_in_image(anchors, target)
            is_object = (matched >= 0).to(logit)

            def hardness(idx: Tensor, logit: Tensor = logit, is_object: Tensor = is_object) -> Tensor:
                return F.binary_cross_entropy_with_logits(logit[idx], is_object[idx], reduction="none")

            generator = generator_of(seed, target.image_id, logit.device)
            sampled = self.sampling(Pool(matched, ious, hardness, generator))  # (S,)
            positive = sampled[matched[sampled] >= 0]
            gt_boxes = target.boxes[~target.ignore][matched[positive]]
            losses_cls.append(hardness(sampled).sum())  # sums: the normaliser is that of the whole batch
            losses_box.append(self._box_losses(delta[positive], anchors.boxes[positive], gt_boxes).sum())
            num_sampled += len(sampled)
        count = num_sampled if self.count_sampled else self.sampling.num * len(targets)
        normalizer = distributed.all_reduce_mean(torch.tensor(float(count), device=anchors.boxes.device)).clamp(min=1)
        return {
            "loss_objectness": torch.stack(losses_cls).sum() / normalizer,
            "loss_rpn_box_reg": torch.stack(losses_box).sum() / normalizer,
        }

    def _box_losses(self, deltas: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        gt_deltas = self.coder.encode(gt_boxes, anchors)
        return self.box_loss(deltas, gt_deltas, self.coder.decode(deltas, anchors), gt_boxes)

    # -- proposals --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def propose(
        self, outputs: Outputs, anchors: AnchorGrid, sizes: list[tuple[int, int]], for_losses: bool = False
    ) -> list[Detections]:
        """Proposals of each image (all of label 0), by falling score and without gradient.

        They are the best anchors of each level, decoded, clipped to the image of `sizes` and suppressed level by level.
        """
        logits, deltas = outputs
        rule = self.train_rule if for_losses else self.test_rule
        boxes, scores, levels = [], [], []
        start = 0
        for level, count in enumerate(anchors.num_per_level):
            num = min(count, rule.pre_nms or count)  # coarse levels have fewer anchors than the limit
            # Each level on its own, or the finest, with three quarters of the anchors, would crowd out the others.
            best, idx = logits[:, start : start + count].float().topk(num, dim=1)  # (N, num)
            idx = (idx + start).flatten()
            images = torch.arange(len(logits), device=idx.device).repeat_interleave(num)
            boxes.append(self.coder.decode(deltas[images, idx].float(), anchors.boxes[idx]).view(-1, num, 4))
            scores.append(best)
            levels.append(torch.full((num,), level, device=idx.device))
            start += count
        boxes, scores, levels = torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)
        return [
            _suppress(anchors.convention.clip(box, size), score, size, levels, len(anchors.grids), rule)
            for box, score, size in zip(boxes, scores, sizes, strict=True)
        ]


def _suppress(
    boxes: Tensor, logits: Tensor, size: tuple[int, int], levels: Tensor, num_levels: int, rule: ProposalRule
) -> Detections:
    """The proposals of one image among clipped boxes (P, 4) with logits (P,) from `levels` (P,)."""
    sides = boxes[:, 2:] - boxes[:, :2]
    is_large = ((sides > 0) & (sides >= rule.min_size)).all(dim=1)
    boxes, logits, levels = boxes[is_large], logits[is_large], levels[is_large]
    kept = class_nms(boxes, logits, levels, rule.nms_thresh)  # levels in the place of classes: each on its own
    if rule.post_nms:
        is_of_level = F.one_hot(levels[kept], num_levels)  # (P, L)
        rank = (is_of_level.cumsum(dim=0) * is_of_level).sum(dim=1)  # 1 for the best of its level
        kept = kept[rank <= rule.post_nms]
    kept = kept[: rule.total or None]
    return Detections(boxes[kept], logits[kept].sigmoid(), torch.zeros_like(kept), size)
