"""The second stage of Faster R-CNN (Girshick, 2015; Ren et al., 2015): proposals in, detections out.

Shapes: N images, P regions of an image or of the batch, M gt boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.modeling.assign import NEGATIVE, BoxMatcher, ignore_covered
from engine.modeling.selection import Selection
from engine.modeling.two_stage.box_head import BoxHead, RegionTargets
from engine.modeling.two_stage.roi_pooling import RoIPooler
from engine.modeling.two_stage.sampling import Pool, Sampling, draw_seed, generator_of
from engine.structures import Detections, PixelConvention, Targets


class StandardRoIHeads(nn.Module):
    """A pooler and one box head.

    Args:
        pooler: cuts proposals out of the pyramid.
        box: the head.
        num_classes: K.
        matcher: which gt box a proposal learns.
        sampling: the proposals of an image that the losses are computed on.
        selection: which boxes become detections.
        convention: what the sides of boxes mean.
        append_gt: gt boxes join the proposals in training, so that there are good ones from the start.
    """

    def __init__(
        self,
        pooler: RoIPooler,
        box: nn.Module,
        num_classes: int,
        matcher: BoxMatcher,
        sampling: Sampling,
        selection: Selection,
        convention: PixelConvention,
        append_gt: bool = True,
    ) -> None:
        super().__init__()
        self.pooler, self.box, self.num_classes = pooler, box, num_classes
        self.matcher, self.sampling, self.append_gt = matcher, sampling, append_gt
        self.selection, self.convention = selection, convention

    # -- training ---------------------------------------------------------------------------------------------------

    def losses(self, features: list[Tensor], proposals: list[Detections], targets: list[Targets]) -> dict[str, Tensor]:
        """Losses of the head on sampled proposals of each image."""
        boxes = [proposal.boxes for proposal in proposals]
        regions = self.sample(features, boxes, targets, self.box, self.matcher)
        return self.box.losses(*self.box(self.pooler(features, regions.boxes)), regions)

    @torch.no_grad()
    def sample(
        self,
        features: list[Tensor],
        proposals: list[Tensor],
        targets: list[Targets],
        head: BoxHead,
        matcher: BoxMatcher,
    ) -> RegionTargets:
        """The regions that `head` learns from, out of the proposals (P_i, 4) and, if `append_gt`, the gt boxes."""
        seed = draw_seed()
        images = []
        for i, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
            gt_boxes = target.boxes[~target.ignore]
            num_proposals = len(boxes)
            # At the start no proposal fits; the gt boxes give the head something to learn from.
            boxes = torch.cat([boxes, gt_boxes]) if self.append_gt else boxes
            matched, ious, labels = self.label(boxes, target, matcher)

            # Called only by OHEM: the other samplers skip this second pass of the head.
            def hardness(idx: Tensor, i: int = i, boxes: Tensor = boxes, labels: Tensor = labels) -> Tensor:
                logits, _ = head(self.pooler([feature[i : i + 1] for feature in features], [boxes[idx]]))
                return head.cls_loss(logits, labels[idx])

            generator = generator_of(seed, target.image_id, boxes.device)
            chosen = self.sampling(Pool(matched, ious, hardness, generator))
            is_gt = chosen >= num_proposals
            images.append((boxes[chosen], labels[chosen], learned_boxes(gt_boxes, matched[chosen]), is_gt))
        return join_regions(images)

    def label(self, boxes: Tensor, target: Targets, matcher: BoxMatcher) -> tuple[Tensor, Tensor, Tensor]:
        """Which gt box each of `boxes` (P, 4) learns (P,), the IoUs (P,), and its class, K for the background (P,)."""
        is_object = ~target.ignore
        matched, ious = matcher(boxes, target.boxes[is_object])
        matched = ignore_covered(matched, boxes, target.boxes[target.ignore])
        labels = torch.full_like(matched, self.num_classes)
        labels[matched >= 0] = target.labels[is_object][matched[matched >= 0]]
        return matched, ious, labels

    # -- testing ----------------------------------------------------------------------------------------------------

    def candidates(self, features: list[Tensor], proposals: list[Detections]) -> list[Detections]:
        """Every box of every class that scores enough, before suppression, in pixels of the proposals."""
        boxes = [proposal.boxes for proposal in proposals]
        logits, deltas = self.box(self.pooler(features, boxes))
        return self.scored(logits.softmax(dim=1), deltas, boxes, [proposal.size for proposal in proposals], self.box)

    def scored(
        self,
        scores: Tensor,
        deltas: Tensor,
        boxes: list[Tensor],
        sizes: Sequence[tuple[int, int]],
        head: BoxHead,
    ) -> list[Detections]:
        """Candidates of each image from scores (P, K + 1) and deltas (P, D, 4) of `head` for regions (P_i, 4)."""
        counts = [len(box) for box in boxes]
        found = []
        for score, delta, box, size in zip(scores.split(counts), deltas.split(counts), boxes, sizes, strict=True):
            idx, labels = (score[:, :-1] > self.selection.score_thresh).nonzero(as_tuple=True)  # background is last
            decoded = self.convention.clip(head.decode(delta[idx], box[idx], labels), size)
            found.append(Detections(decoded, score[idx, labels], labels, size))
        return found


def join_regions(images: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> RegionTargets:
    """(boxes, labels, gt boxes, is_gt) of each image -> those of the batch."""
    boxes, labels, gt_boxes, is_gt = zip(*images, strict=True)
    return RegionTargets(list(boxes), torch.cat(labels), torch.cat(gt_boxes), torch.cat(is_gt))


def learned_boxes(gt_boxes: Tensor, matched: Tensor) -> Tensor:
    """The gt box (P, 4) of each matched (P,); zeros for negatives."""
    learned = gt_boxes.new_zeros(len(matched), 4)
    is_object = matched > NEGATIVE
    learned[is_object] = gt_boxes[matched[is_object]]
    return learned
