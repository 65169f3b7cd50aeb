"""The dense stage: a head predicts something for every anchor, and the rest of its parts say what that means.

Shapes: N images, L levels, R anchors per image, P candidates, M gt boxes, K classes, C channels, D numbers of a code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from engine.modeling.anchors import AnchorGenerator, AnchorGrid
from engine.modeling.assign import Assigner, ImagePredictions, ignore_covered
from engine.modeling.box_coding import BoxCoder
from engine.modeling.selection import Selection
from engine.registry import Registry, taken_by
from engine.structures import Detections, PixelConvention, Targets
from engine.structures import boxes as box_ops

DENSE_STAGES = Registry("DENSE_STAGES")
"""(shape: `DenseShape`, **arguments) -> `DenseStage`, by the name in `MODEL.DENSE.NAME`; its arguments are those of
`MODEL.DENSE.ARGS`. ATSS, RETINANET and FCOS, which have keys of their own, are registered in `assembly.dense`."""


@dataclass(frozen=True)
class DenseShape:
    """What a dense stage must fit: the pyramid before it, and what it is to find.

    Attributes:
        channels: C of every level.
        strides: pixels between cells of each level.
        num_classes: K; 1 ("object") where a second stage follows.
        convention: what the sides of boxes mean, and where anchors lie.
        max_detections: of an image, 0 for no limit.
    """

    channels: int
    strides: tuple[int, ...]
    num_classes: int
    convention: PixelConvention
    max_detections: int = 100


@dataclass
class HeadOutputs:
    """Raw predictions of a batch, levels joined in the order of the anchors.

    Attributes:
        logits: (N, R, K); `DenseStage.class_scores` makes scores of them.
        codes: (N, R, D), decoded by the stage's `BoxCoder`, which says how many numbers D stand for a box.
        centerness: (N, R) logits; None where the head predicts none (RetinaNet).
        extra: whatever else the losses of a stage need, by name, (N, R, ...) each; testing does not look at it.
    """

    logits: Tensor
    codes: Tensor
    centerness: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)


def _class_score(cls_scores: Tensor, centerness: Tensor | None) -> Tensor:
    return cls_scores


def _joint_score(cls_scores: Tensor, centerness: Tensor) -> Tensor:
    return cls_scores * centerness


def _root_of_joint(cls_scores: Tensor, centerness: Tensor) -> Tensor:
    return (cls_scores * centerness).sqrt()


Score = Callable[[Tensor, Tensor | None], Tensor]
"""(class scores, centerness), both in [0, 1] and of shapes that broadcast -> scores."""


@dataclass(frozen=True)
class ScoreRule:
    """How class score and centerness combine into the score of a box.

    Attributes:
        thresholded: must be above `Selection.score_thresh`.
        ranked: decides which `Selection.pre_nms_top_n` candidates of a level stay.
        final: the score of the detection.
    """

    thresholded: Score = _class_score
    ranked: Score = _class_score
    final: Score = _class_score


SCORE_RULES = {
    "class": ScoreRule(),  # RetinaNet: there is no centerness
    "sqrt": ScoreRule(_class_score, _joint_score, _root_of_joint),  # ATSS, FCOS
    "product": ScoreRule(_class_score, _class_score, _joint_score),  # mmdetection's ATSS
    "joint": ScoreRule(_root_of_joint, _joint_score, _root_of_joint),  # torchvision's FCOS
}


@dataclass(frozen=True)
class DenseParts:
    """What every dense stage is put together from.

    Attributes:
        head: pyramid -> `HeadOutputs`.
        anchor_generator: anchors of the pyramid's levels.
        assign: a rule of `modeling.assign` with its parameters bound.
        coder: what the head's codes mean.
        cls_loss: (logits (..., K), labels (...) in -2..K-1) -> sum over all that are not ignored, scalar. One that also
            takes `qualities` gets those (P,) of the positives, see `DenseStage.qualities`.
        score_rule: from SCORE_RULES, or one's own.
        selection: which boxes become detections.
        drops_empty: boxes that clipping leaves without area are no candidates (mmdetection).
    """

    head: nn.Module
    anchor_generator: AnchorGenerator
    assign: Assigner
    coder: BoxCoder
    cls_loss: Callable[..., Tensor]
    score_rule: ScoreRule
    selection: Selection
    drops_empty: bool = False


class DenseStage(nn.Module):
    """A head, its anchors, what they learn, and how predictions become boxes; subclasses define the losses.

    Attributes:
        train_selection: replaces `selection` for the proposals of a training step, where a second stage follows.
    """

    def __init__(self, parts: DenseParts) -> None:
        super().__init__()
        self.head, self.anchor_generator = parts.head, parts.anchor_generator
        self.assign, self.coder, self.cls_loss = parts.assign, parts.coder, parts.cls_loss
        self.score_rule, self.selection, self.train_selection = parts.score_rule, parts.selection, parts.selection
        self.drops_empty = parts.drops_empty

    def forward(self, features: list[Tensor], image_size: tuple[int, int]) -> tuple[HeadOutputs, AnchorGrid]:
        """Predictions for a pyramid of images that were padded to `image_size` (height, width), and their anchors."""
        return self.head(features), self.anchor_generator(features, image_size)

    # -- training ---------------------------------------------------------------------------------------------------

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Named losses of a batch, scalars."""
        raise NotImplementedError

    def class_loss(self, logits: Tensor, labels: Tensor, codes: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """`DenseParts.cls_loss` of logits (..., K) and labels (...), with the qualities of positives if it learns them.

        Args:
            codes, anchors, gt_boxes: (P, D), (P, 4), (P, 4) of the positives, in their order.
        """
        offers = {"qualities": partial(self.qualities, codes, anchors, gt_boxes)}
        soft = {name: compute() for name, compute in taken_by(self.cls_loss, offers).items()}
        return self.cls_loss(logits.float(), labels, **soft)

    @torch.no_grad()
    def qualities(self, codes: Tensor, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
        """IoU (P,) of the boxes that `codes` (P, D) stand for with `gt_boxes` (P, 4): what soft labels are."""
        return box_ops.iou_of_rows(self.coder.decode(codes.float(), anchors), gt_boxes)

    @torch.no_grad()
    def assign_targets(
        self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]
    ) -> tuple[Tensor, Tensor]:
        """What each anchor learns: labels (N, R) in 0..K-1, NEGATIVE or IGNORED, and gt boxes (N, R, 4), 0 for none."""
        images = [
            self.assign_in_image(anchors, target, outputs.logits[i], outputs.codes[i])
            for i, target in enumerate(targets)
        ]
        labels, boxes = zip(*images, strict=True)
        return torch.stack(labels), torch.stack(boxes)

    def positive_targets(
        self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (N, R) of `assign_targets`; gt boxes (P, 4) and anchors (P, 4) of the positives, image after image."""
        labels, gt_boxes = self.assign_targets(outputs, anchors, targets)
        is_positive = labels >= 0
        return labels, gt_boxes[is_positive], anchors.boxes.expand_as(gt_boxes)[is_positive]

    def assign_in_image(
        self, anchors: AnchorGrid, targets: Targets, logits: Tensor, codes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`assign_targets` of one image with predictions (R, K) and (R, D): labels (R,), gt boxes (R, 4)."""
        matched, objects = self.match_in_image(self.assign, anchors, targets, logits, codes)
        is_positive = matched >= 0
        labels, boxes = matched.clone(), torch.zeros_like(anchors.boxes)
        labels[is_positive] = objects.labels[matched[is_positive]]
        boxes[is_positive] = objects.boxes[matched[is_positive]]
        return labels, boxes

    def match_in_image(
        self, assign: Assigner, anchors: AnchorGrid, targets: Targets, logits: Tensor, codes: Tensor
    ) -> tuple[Tensor, Targets]:
        """Which object each anchor of an image learns by the rule `assign`: index, NEGATIVE or IGNORED (R,), objects.

        The objects (M) are the targets that are not ignored. Anchors in regions that are, such as crowds, are ignored
        unless they match an object.
        """
        objects, regions = targets[~targets.ignore], targets[targets.ignore]
        predictions = ImagePredictions(
            logits.detach(), objects.labels, lambda: self.coder.decode(codes.detach().float(), anchors.boxes)
        )
        matched = assign(anchors, objects.boxes, predictions)
        return ignore_covered(matched, anchors.boxes, regions.boxes), objects

    # -- testing ----------------------------------------------------------------------------------------------------

    def propose(
        self, outputs: HeadOutputs, anchors: AnchorGrid, sizes: list[tuple[int, int]], for_losses: bool = False
    ) -> list[Detections]:
        """Proposals of each image for a second stage, by falling score and without gradient."""
        selection = self.train_selection if for_losses else self.selection
        with torch.no_grad():
            return [selection(candidates) for candidates in self.candidates(outputs, anchors, sizes)]

    def candidates(self, outputs: HeadOutputs, anchors: AnchorGrid, sizes: list[tuple[int, int]]) -> list[Detections]:
        """At most `pre_nms_top_n` scored boxes per level of each image, in pixels of the unpadded image of `sizes`."""
        cls_scores = self.class_scores(outputs)  # (N, R, K)
        none = [None] * len(sizes)
        centerness = none if outputs.centerness is None else outputs.centerness.float().sigmoid()  # (N, R)
        return [
            self._candidates_in_image(cls_scores[i], centerness[i], outputs.codes[i].float(), anchors, size)
            for i, size in enumerate(sizes)
        ]

    def class_scores(self, outputs: HeadOutputs) -> Tensor:
        """Scores (N, R, K) in [0, 1], float32, that a head's `logits` stand for."""
        # In bfloat16 most scores near 1 would be equal, and their order chance.
        return outputs.logits.float().sigmoid()

    def _candidates_in_image(
        self,
        cls_scores: Tensor,
        centerness: Tensor | None,
        codes: Tensor,
        anchors: AnchorGrid,
        size: tuple[int, int],
    ) -> Detections:
        levels, start = [], 0
        for count in anchors.num_per_level:
            level = slice(start, start + count)
            anchor_idx, labels = self._best_of_level(
                cls_scores[level], None if centerness is None else centerness[level]
            )
            levels.append((anchor_idx + start, labels))
            start += count
        idx, labels = (torch.cat(parts) for parts in zip(*levels, strict=True))  # (P,) each
        scores = self.score_rule.final(cls_scores[idx, labels], None if centerness is None else centerness[idx])
        # Boxes are decoded last: of tens of thousands of anchors only these are worth it.
        boxes = anchors.convention.clip(self.coder.decode(codes[idx], anchors.boxes[idx]), size)
        candidates = Detections(boxes, scores, labels, size)
        return candidates[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)] if self.drops_empty else candidates

    def _best_of_level(self, cls_scores: Tensor, centerness: Tensor | None) -> tuple[Tensor, Tensor]:
        """Anchors (P,) and classes (P,) of the candidates of a level with class scores (R_l, K), centerness (R_l,)."""
        column = None if centerness is None else centerness[:, None]  # (R_l, 1)
        is_candidate = self.score_rule.thresholded(cls_scores, column) > self.selection.score_thresh
        idx, labels = is_candidate.nonzero(as_tuple=True)
        limit = self.selection.pre_nms_top_n
        if limit and len(idx) > limit:
            ranks = self.score_rule.ranked(cls_scores[idx, labels], None if centerness is None else centerness[idx])
            best = ranks.topk(limit).indices
            idx, labels = idx[best], labels[best]
        return idx, labels
