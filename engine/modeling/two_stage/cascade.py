"""Cascade R-CNN (Cai & Vasconcelos, 2018): stages of rising IoU, each refining the boxes of the one before.

Shapes: N images, P regions of an image or of the batch, K classes, T stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.modeling.assign import IGNORED, BoxMatcher
from engine.modeling.selection import Selection
from engine.modeling.two_stage.box_head import BoxHead, RegionTargets
from engine.modeling.two_stage.roi_heads import StandardRoIHeads, join_regions, learned_boxes
from engine.modeling.two_stage.roi_pooling import RoIPooler
from engine.modeling.two_stage.sampling import Sampling
from engine.registry import Registry
from engine.structures import Detections, PixelConvention, Targets

SCORE_MEANS = Registry("SCORE_MEANS")
"""Logits (P, K + 1) of each stage -> scores (P, K + 1), looked up by `MODEL.ROI_BOX_CASCADE_HEAD.SCORE_MEAN`."""


@SCORE_MEANS.register("probabilities")
def mean_probabilities(logits_of_stages: Sequence[Tensor]) -> Tensor:
    """Mean of the stages' softmaxes (detectron2)."""
    return torch.stack([stage.softmax(dim=1) for stage in logits_of_stages]).mean(dim=0)


@SCORE_MEANS.register("logits")
def mean_logits(logits_of_stages: Sequence[Tensor]) -> Tensor:
    """Softmax of the mean logits (mmdetection)."""
    return torch.stack(list(logits_of_stages)).mean(dim=0).softmax(dim=1)


@dataclass(frozen=True)
class CascadeStage:
    """One head of a cascade.

    Attributes:
        head: refines the boxes of the stage before.
        matcher: which gt box a region learns; each stage asks for a higher IoU.
        loss_weight: factor of its losses.
    """

    head: BoxHead
    matcher: BoxMatcher
    loss_weight: float = 1.0


class CascadeRoIHeads(StandardRoIHeads):
    """A pooler and T box heads, named `box.0`, `box.1`, ...

    Args:
        pooler, num_classes, sampling, selection, convention, append_gt: see `StandardRoIHeads`.
        stages: T of them.
        score_mean: from SCORE_MEANS.
        resample: every stage samples anew, and gt boxes join its regions (mmdetection). False: the first stage samples,
            the later ones learn from all that it refined (detectron2).
        feature_gradient: factor of the gradient from each stage into the pyramid.
    """

    def __init__(
        self,
        pooler: RoIPooler,
        stages: Sequence[CascadeStage],
        num_classes: int,
        sampling: Sampling,
        selection: Selection,
        score_mean: Callable[[Sequence[Tensor]], Tensor],
        convention: PixelConvention,
        append_gt: bool = True,
        resample: bool = True,
        feature_gradient: float = 1.0,
    ) -> None:
        heads = nn.ModuleList(stage.head for stage in stages)
        super().__init__(pooler, heads, num_classes, stages[0].matcher, sampling, selection, convention, append_gt)
        self.matchers = [stage.matcher for stage in stages]
        self.loss_weights = [stage.loss_weight for stage in stages]
        self.score_mean, self.resample, self.feature_gradient = score_mean, resample, feature_gradient

    # -- training ---------------------------------------------------------------------------------------------------

    def losses(self, features: list[Tensor], proposals: list[Detections], targets: list[Targets]) -> dict[str, Tensor]:
        """Losses of every stage, named `loss_classifier_stage0`, ..."""
        losses = {}
        boxes = [proposal.boxes for proposal in proposals]
        for i, (head, matcher, weight) in enumerate(zip(self.box, self.matchers, self.loss_weights, strict=True)):
            if i == 0 or self.resample:  # detectron2 samples once: later stages learn from all refined regions
                regions = self.sample(features, boxes, targets, head, matcher)
            else:
                regions = self.relabel(boxes, targets, matcher)
            pooled = self._scale_gradient(self.pooler(features, regions.boxes))
            logits, deltas = head(pooled)
            for name, loss in head.losses(logits, deltas, regions).items():
                losses[f"{name}_stage{i}"] = weight * loss
            boxes = self.refine_for_training(head, logits, deltas, regions, [target.size for target in targets])
        return losses

    @torch.no_grad()
    def relabel(self, boxes: list[Tensor], targets: list[Targets], matcher: BoxMatcher) -> RegionTargets:
        """All `boxes` (P_i, 4) except those in ignore regions, with what they learn at this stage's threshold."""
        images = []
        for box, target in zip(boxes, targets, strict=True):
            matched, _, labels = self.label(box, target, matcher)
            used = matched != IGNORED  # dropped here, since no sampler leaves them out
            learned = learned_boxes(target.boxes[~target.ignore], matched)
            images.append((box[used], labels[used], learned[used], torch.zeros_like(used)[used]))
        return join_regions(images)

    @torch.no_grad()
    def refine_for_training(
        self,
        head: BoxHead,
        logits: Tensor,
        deltas: Tensor,
        regions: RegionTargets,
        sizes: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        """The next stage's regions (P_i, 4): empty ones are dropped, and with `resample` gt boxes."""
        is_object = regions.labels < self.num_classes
        # Background has no deltas of its own; as in testing, it is refined with those of its most likely class.
        labels = torch.where(is_object, regions.labels, best_class(logits))
        counts = [len(box) for box in regions.boxes]
        refined = self.refine(head, deltas, labels, regions.boxes, sizes)
        dropped = regions.is_gt if self.resample else torch.zeros_like(regions.is_gt)
        return [
            box[~drop & (box[:, 2:] > box[:, :2]).all(dim=1)]
            for box, drop in zip(refined, dropped.split(counts), strict=True)
        ]

    def _scale_gradient(self, pooled: Tensor) -> Tensor:
        # T stages send T gradients into one pyramid; detectron2 takes their mean.
        if self.feature_gradient != 1 and pooled.requires_grad:
            pooled.register_hook(lambda gradient: gradient * self.feature_gradient)
        return pooled

    # -- testing ----------------------------------------------------------------------------------------------------

    def candidates(self, features: list[Tensor], proposals: list[Detections]) -> list[Detections]:
        """See `StandardRoIHeads.candidates`: boxes of the last stage, scores of all."""
        boxes = [proposal.boxes for proposal in proposals]
        sizes = [proposal.size for proposal in proposals]
        stage_logits = []
        for i, head in enumerate(self.box):
            logits, deltas = head(self.pooler(features, boxes))
            stage_logits.append(logits)
            if i < len(self.box) - 1:
                boxes = self.refine(head, deltas, best_class(logits), boxes, sizes)
        return self.scored(self.score_mean(stage_logits), deltas, boxes, sizes, self.box[-1])

    def refine(
        self,
        head: BoxHead,
        deltas: Tensor,
        labels: Tensor,
        boxes: list[Tensor],
        sizes: Sequence[tuple[int, int]],
    ) -> list[Tensor]:
        """Regions (P_i, 4) moved by what `head` says about their classes `labels` (P,), clipped to their images."""
        refined = head.decode(deltas, torch.cat(boxes), labels).split([len(box) for box in boxes])
        return [self.convention.clip(box, size) for box, size in zip(refined, sizes, strict=True)]


def best_class(logits: Tensor) -> Tensor:
    """The class (P,) in 0..K-1 of largest logit (P, K + 1)."""
    return logits[:, :-1].argmax(dim=1)
