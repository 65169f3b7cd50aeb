"""The TOOD dense stage (Feng et al., 2021): classification and localisation learn to be best at the same anchors.

Training has two phases. At first predictions say nothing, so that anchors are chosen by ATSS; then by how well the
head predicts each box, which is also the score that they learn.

Shapes: N images, L levels, R anchors per image, P positives, M gt boxes, K classes, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine import distributed
from engine.layers.losses import focal_loss_sum, giou_loss, quality_focal_loss_sum
from engine.log import get_logger
from engine.modeling.anchors import AnchorGenerator, AnchorGrid
from engine.modeling.assign import Assigner, assign_atss, pairwise_iou
from engine.modeling.assign_aligned import Alignment, aligned_quality, assign_task_aligned, without_inversion
from engine.modeling.box_coding import MAX_LOG_RATIO, BoxAsCode, BoxCoder, DeltaCoder, DistanceCoder
from engine.modeling.dense.centerness import centerness_targets
from engine.modeling.dense.stage import DENSE_STAGES, SCORE_RULES, DenseParts, DenseShape, DenseStage, HeadOutputs
from engine.modeling.dense.tood_head import TOODHead
from engine.modeling.selection import Selection
from engine.structures import Targets

ANCHOR_TYPES = ("anchor_free", "anchor_based")


@dataclass(frozen=True)
class AlignedPhase:
    """What changes when the first phase of the training ends.

    Attributes:
        assign: chooses the anchors from then on.
        align: metric of anchors, the same as in `assign`.
        cls_beta: exponent of the quality focal loss.
        initial_share: of the iterations of a run, how many belong to the first phase, in [0, 1].
        initial_iterations: their number, instead of a share; None for the share.
    """

    assign: Assigner
    align: Alignment = Alignment()
    cls_beta: float = 2.0
    initial_share: float = 1 / 3
    initial_iterations: int | None = None

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
        self.is_initial = True

    def forward(self, features: list[Tensor], image_size: tuple[int, int]) -> tuple[HeadOutputs, AnchorGrid]:
        anchors = self.anchor_generator(features, image_size)
        return self.head(features, anchors), anchors

    def follow(self, iteration: int, max_iter: int) -> None:
        """Choose the phase of the 0-based `iteration` of a run of `max_iter`, which comes next.

        A model that was not told is in the first phase.
        """
        was_initial, first = self.is_initial, self.aligned.first(max_iter)
        self.is_initial = iteration < first
        if was_initial and not self.is_initial and iteration == first:
            get_logger(__name__).info("TOOD: task-aligned assignment from iteration %d on, ATSS until then", first)

    def losses(self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]) -> dict[str, Tensor]:
        """Class loss over all anchors, GIoU loss over the positives, weighted by how good an anchor is for its box.

        That is the centerness in the first phase, the score to learn in the second. Normalisers are averages over all
        processes, so that any split of a batch gives the same gradient.
        """
        learn = self._initial_targets if self.is_initial else self._aligned_targets
        labels, gt_boxes, weights = learn(outputs, anchors, targets)  # (N, R), (N, R, 4), (N, R)
        is_positive = labels >= 0
        logits, sum_weights = outputs.logits.float(), weights.sum()
        if self.is_initial:
            loss_cls, count = self.cls_loss(logits, labels), is_positive.sum().to(sum_weights)
        else:
            loss_cls, count = quality_focal_loss_sum(logits, labels, weights, self.aligned.cls_beta), sum_weights
        loss_reg = giou_loss(outputs.codes[is_positive], gt_boxes[is_positive]) * weights[is_positive]  # (P,)
        # Images without boxes count for nothing; a batch of only such has divisors of 1.
        count, sum_weights = distributed.all_reduce_mean(torch.stack([count, sum_weights])).clamp(min=1).unbind()
        return {"loss_cls": loss_cls / count, "loss_reg": self.reg_loss_weight * loss_reg.sum() / sum_weights}

    def _initial_targets(
        self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (N, R), gt boxes (N, R, 4) and centerness (N, R), which is 0 for all but the positives."""
        labels, gt_boxes = self.assign_targets(outputs, anchors, targets)
        is_positive = labels >= 0
        centerness = torch.zeros_like(gt_boxes[..., 0])
        positive_anchors = anchors.boxes.expand_as(gt_boxes)[is_positive]  # (P, 4)
        centerness[is_positive] = centerness_targets(positive_anchors, gt_boxes[is_positive], anchors.convention)
        return labels, gt_boxes, centerness

    @torch.no_grad()
    def _aligned_targets(
        self, outputs: HeadOutputs, anchors: AnchorGrid, targets: list[Targets]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (N, R), gt boxes (N, R, 4) and the scores to learn (N, R), which are 0 for all but the positives."""
        images = [
            self._aligned_targets_in_image(anchors, target, outputs.logits[i], outputs.codes[i])
            for i, target in enumerate(targets)
        ]
        labels, gt_boxes, qualities = (torch.stack(parts) for parts in zip(*images, strict=True))
        return labels, gt_boxes, qualities

    def _aligned_targets_in_image(
        self, anchors: AnchorGrid, targets: Targets, logits: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        matched, objects = self.match_in_image(self.aligned.assign, anchors, targets, logits, boxes)
        is_positive = matched >= 0
        gt_idx = matched[is_positive]  # (P,)
        labels, gt_boxes = matched.clone(), torch.zeros_like(anchors.boxes)
        labels[is_positive], gt_boxes[is_positive] = objects.labels[gt_idx], objects.boxes[gt_idx]
        scores = logits[is_positive].float().gather(1, labels[is_positive][:, None])[:, 0].sigmoid()  # (P,)
        ious = pairwise_iou(without_inversion(boxes[is_positive]), objects.boxes[gt_idx])  # (P,)
        qualities = torch.zeros_like(gt_boxes[:, 0])
        qualities[is_positive] = aligned_quality(self.aligned.align(scores, ious), ious, gt_idx, len(objects))
        return labels, gt_boxes, qualities


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
    cls_beta: float = 2.0,
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
        cls_beta: exponent of the class loss of the second phase.
        reg_loss_weight: factor of the GIoU loss.
        score_thresh, pre_nms_top_n, nms_thresh: see `Selection`.

    Raises:
        ValueError: an argument is out of its range.
    """
    if anchor_type not in ANCHOR_TYPES:
        raise ValueError(f"anchor_type must be {' or '.join(ANCHOR_TYPES)}, got {anchor_type!r}")
    if not 0 <= initial_share <= 1:
        raise ValueError(f"initial_share must be from 0 to 1, got {initial_share}")
    if initial_iterations is not None and initial_iterations < 0:
        raise ValueError(f"initial_iterations must not be negative, got {initial_iterations}")
    is_free = anchor_type == "anchor_free"
    coder: BoxCoder = DistanceCoder(anchor_size, shape.convention.inset)
    if not is_free:
        coder = DeltaCoder(min_log_ratio=-MAX_LOG_RATIO)
    head = TOODHead(shape.channels, shape.num_classes, coder, len(shape.strides), num_convs, is_free, prior)
    sizes = [[anchor_size * stride] for stride in shape.strides]
    parts = DenseParts(
        head,
        AnchorGenerator(sizes, [1.0], shape.strides, shape.convention),
        partial(assign_atss, topk=initial_topk),
        BoxAsCode(),
        partial(focal_loss_sum, alpha=focal_alpha, gamma=focal_gamma),
        SCORE_RULES["class"],
        Selection(score_thresh, pre_nms_top_n, nms_thresh, shape.max_detections),
    )
    assign = partial(assign_task_aligned, topk=topk, alpha=alpha, beta=beta)
    aligned = AlignedPhase(assign, Alignment(alpha, beta), cls_beta, initial_share, initial_iterations)
    return TOOD(parts, aligned, reg_loss_weight)
