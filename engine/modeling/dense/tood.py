"""The TOOD dense stage (Feng et al., 2021): classification and localisation learn to be best at the same anchors.

Training has two phases. At first predictions say nothing, so that anchors are chosen by ATSS; then by how well the
head predicts each box, which is also the score that they learn.

Shapes: N images, L levels, R anchors per image, P positives, M gt boxes, K classes, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine import distributed
from engine.layers.losses import focal_loss_sum, giou_loss
from engine.layers.quality_losses import quality_focal_loss_sum
from engine.log import get_logger
from engine.modeling.anchors import AnchorGrid
from engine.modeling.arguments import MOST_LAYERS, check_counts, check_range
from engine.modeling.assign import Assigner, assign_atss
from engine.modeling.assign_aligned import Alignment, aligned_quality, assign_task_aligned
from engine.modeling.box_coding import MAX_LOG_RATIO, BoxAsCode, BoxCoder, DeltaCoder, DistanceCoder
from engine.modeling.dense.arguments import check_prior, selection_of, square_anchors
from engine.modeling.dense.centerness import centerness_targets
from engine.modeling.dense.stage import DENSE_STAGES, SCORE_RULES, DenseParts, DenseShape, DenseStage, HeadOutputs
from engine.modeling.dense.tood_head import TOODHead
from engine.structures import PixelConvention, Targets
from engine.structures import boxes as box_ops


@dataclass(frozen=True)
class AlignedPhase:
    """What changes when the first phase of the training ends.

    Attributes:
        assign: chooses the anchors from then on.
        align: metric of anchors, the same as in `assign`.
        cls_loss: (logits (..., K), labels (...), scores to learn (P,) of the positives) -> sum, scalar.
        initial_share: of the iterations of a run, how many belong to the first phase, in [0, 1].
        initial_iterations: their number, instead of a share; None for the share.
    """

    assign: Assigner
    align: Alignment
    cls_loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    initial_share: float = 1 / 3
    initial_iterations: int | None = None

    @property
    def has_first(self) -> bool:
        """Whether there is a first phase."""
        return (self.initial_share if self.initial_iterations is None else self.initial_iterations) > 0

    def first(self, max_iter: int) -> int:
        """The first iteration, 0-based, of the second phase in a run of `max_iter`."""
        return round(self.initial_share * max_iter) if self.initial_iterations is None else self.initial_iterations


class TOOD(DenseStage):
    """The dense stage whose head is a `TOODHead`.

    Args:
        parts: `assign` and `cls_loss` are those of the first phase.
        aligned: the second phase.
        reg_loss_weight: factor of the box loss.

    Attributes:
        is_initial: whether training is in its first phase, see `follow`.
    """

    def __init__(self, parts: DenseParts, aligned: AlignedPhase, reg_loss_weight: float = 2.0) -> None:
        super().__init__(parts)
        self.aligned, self.reg_loss_weight = aligned, reg_loss_weight
        self.is_initial = aligned.has_first

    def forward(self, features: list[Tensor], image_size: tuple[int, int]) -> tuple[HeadOutputs, AnchorGrid]:
        anchors = self.anchor_generator(features, image_size)
        return self.head(features, anchors), anchors

    def follow(self, iteration: int, max_iter: int) -> None:
        """Choose the phase of the 0-based `iteration` of a run of `max_iter`, which comes next.

        A model for which this was never called is in the first phase, if there is one.
        """
        was_initial, first = self.is_initial, self.aligned.first(max_iter)
        self.is_initial = iteration < first
        if was_initial and not self.is_initial and iteration == first > 0:
            get_logger(__name__).info("TOOD: task-aligned assignment from iteration %d on, ATSS until then", first)

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Class loss over all anchors, GIoU loss over the positives, weighted by how good an anchor is for its box.

        That is the centerness in the first phase, the score to learn in the second. Normalisers are averages over all
        processes, so that any split of a batch gives the same gradient.
        """
        logits = outputs.logits.float()
        if self.is_initial:
            labels, gt_boxes, weights = self.initial_targets(outputs, anchors, targets)  # (N, R), (P, 4), (P,)
            loss_cls, count = self.cls_loss(logits, labels), (labels >= 0).sum().to(weights)
        else:
            labels, gt_boxes, weights = self.aligned_targets(outputs, anchors, targets)
            loss_cls, count = self.aligned.cls_loss(logits, labels, weights), weights.sum()
        loss_reg = (giou_loss(outputs.codes[labels >= 0], gt_boxes) * weights).sum()
        # Images without boxes add nothing to the sums; a batch of only such images is divided by 1.
        sums = torch.stack([count, weights.sum()])
        divisor_cls, divisor_reg = distributed.normalizers(sums).unbind()
        return {"loss_cls": loss_cls / divisor_cls, "loss_reg": self.reg_loss_weight * loss_reg / divisor_reg}

    def initial_targets(
        self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (N, R) of the first phase; gt boxes (P, 4) and centerness (P,) of the positives."""
        labels, gt_boxes, positive_anchors = self.positive_targets(outputs, anchors, targets)
        return labels, gt_boxes, centerness_targets(positive_anchors, gt_boxes, anchors.convention)

    @torch.no_grad()
    def aligned_targets(
        self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (N, R) of the second phase; gt boxes (P, 4) and scores to learn (P,) of the positives."""
        images = [
            self._aligned_targets_in_image(anchors, target, outputs.logits[i], outputs.codes[i])
            for i, target in enumerate(targets)
        ]
        labels, gt_boxes, qualities = zip(*images, strict=True)
        return torch.stack(labels), torch.cat(gt_boxes), torch.cat(qualities)

    def _aligned_targets_in_image(
        self, anchors: AnchorGrid, targets: Targets, logits: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        matched, objects = self.match_in_image(self.aligned.assign, anchors, targets, logits, boxes)
        is_positive = matched >= 0
        gt_idx = matched[is_positive]  # (P,)
        gt_boxes, gt_labels = objects.boxes[gt_idx], objects.labels[gt_idx]
        scores = logits[is_positive].float().gather(1, gt_labels[:, None])[:, 0].sigmoid()  # (P,)
        ious = box_ops.iou_of_rows(box_ops.without_inversion(boxes[is_positive]), gt_boxes)  # (P,)
        qualities = aligned_quality(self.aligned.align(scores, ious), ious, gt_idx, len(objects))
        labels = matched.clone()
        labels[is_positive] = gt_labels
        return labels, gt_boxes, qualities


def _coder(anchor_type: str, anchor_size: float, convention: PixelConvention) -> BoxCoder:
    """What the box branch predicts.

    Raises:
        ValueError: `anchor_type` is neither anchor_free nor anchor_based.
    """
    if anchor_type == "anchor_free":
        return DistanceCoder(anchor_size, convention.inset)
    if anchor_type == "anchor_based":
        return DeltaCoder(min_log_ratio=-MAX_LOG_RATIO)
    raise ValueError(f"anchor_type must be anchor_free or anchor_based, got {anchor_type!r}")


@DENSE_STAGES.register("TOOD")
def build_tood(
    shape: DenseShape,
    num_convs: int = 6,
    anchor_type: str = "anchor_free",
    anchor_size: float = 8.0,
    prior: float = 0.01,
    initial_share: float = 1 / 3,
    initial_iterations: int | None = None,
    initial_topk: int = 9,
    topk: int = 13,
    alpha: float = 1.0,
    beta: float = 6.0,
    focal_alpha: float = 0.25,
    focal_gamma: float = 2.0,
    gamma: float = 2.0,
    reg_loss_weight: float = 2.0,
    score_thresh: float = 0.05,
    pre_nms_top_n: int = 1000,
    nms_thresh: float = 0.6,
) -> TOOD:
    """The published head and losses by default.

    Args:
        shape: see `DenseShape`.
        num_convs: convolutions of the tower that both tasks share.
        anchor_type: the head predicts distances from the anchor's centre (anchor_free) or deltas (anchor_based).
        anchor_size: side of the anchors, in strides. Without anchors it still matters for ATSS, in the first phase.
        prior: score of every class before training.
        initial_share: share of the iterations that belong to the first phase; published are 4 of 12 epochs.
        initial_iterations: their number, instead of the share.
        initial_topk: candidates per level and box in the first phase (ATSS).
        topk: candidates per box in the second phase.
        alpha, beta: exponents of score and IoU in the metric, see `Alignment`.
        focal_alpha, focal_gamma: of the class loss of the first phase.
        gamma: focusing power of the class loss of the second phase (quality focal loss).
        reg_loss_weight: factor of the GIoU loss.
        score_thresh, pre_nms_top_n, nms_thresh: see `Selection`.

    Raises:
        ValueError: an argument is out of its range.
    """
    check_counts(at_least=1, at_most=MOST_LAYERS, num_convs=num_convs)
    check_counts(at_least=1, initial_topk=initial_topk, topk=topk)
    check_counts(initial_iterations=initial_iterations or 0)
    check_range(at_least=0, alpha=alpha, beta=beta, focal_gamma=focal_gamma, gamma=gamma)
    check_range(at_least=0, reg_loss_weight=reg_loss_weight)
    check_range(at_least=0, at_most=1, initial_share=initial_share, focal_alpha=focal_alpha)
    check_prior(prior)
    coder, is_free = _coder(anchor_type, anchor_size, shape.convention), anchor_type == "anchor_free"
    head = TOODHead(shape.channels, shape.num_classes, coder, len(shape.strides), num_convs, is_free, prior)
    parts = DenseParts(
        head,
        square_anchors(shape, anchor_size),
        partial(assign_atss, topk=initial_topk),
        BoxAsCode(),
        partial(focal_loss_sum, alpha=focal_alpha, gamma=focal_gamma),
        SCORE_RULES["class"],
        selection_of(shape, score_thresh, pre_nms_top_n, nms_thresh),
        drops_empty=True,
    )
    assign = partial(assign_task_aligned, topk=topk, alpha=alpha, beta=beta)
    cls_loss = partial(quality_focal_loss_sum, gamma=gamma)
    aligned = AlignedPhase(assign, Alignment(alpha, beta), cls_loss, initial_share, initial_iterations)
    return TOOD(parts, aligned, reg_loss_weight)
