"""The two stages of Faster R-CNN and Cascade R-CNN for the exported graph: proposals and candidates in fixed sizes.

Every image has as many rows as any other. Rows without a proposal hold an empty box, pass through the heads like the
others (which look at each region alone), and end with the score `NO_SCORE`.

Shapes: N images, L levels, R anchors per image, P proposals of each image, K classes, D = 1 or K boxes per region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.errors import InputError
from engine.export.candidates import Candidates, dense_candidates, gather_rows, size_columns, smaller
from engine.export.suppression import NO_SCORE, Suppress
from engine.modeling.anchors import AnchorGrid
from engine.modeling.dense.stage import DenseStage, HeadOutputs
from engine.modeling.two_stage.box_head import BoxHead
from engine.modeling.two_stage.cascade import CascadeRoIHeads, best_class
from engine.modeling.two_stage.roi_heads import StandardRoIHeads
from engine.modeling.two_stage.roi_pooling import RoIPooler
from engine.modeling.two_stage.rpn import RPN, Outputs

OUTSIDE = (-1e5, -1e5, 10 - 1e5, 10 - 1e5)
"""A region that lies outside every image, pixels: what is pooled there is 0."""

REDONE = {
    RPN: ("forward", "propose"),
    DenseStage: ("candidates", "propose", "_candidates_in_image", "_best_of_level"),
    StandardRoIHeads: ("candidates", "scored"),
    CascadeRoIHeads: ("candidates", "scored", "refine"),
    BoxHead: ("forward", "decode"),
    RoIPooler: ("forward", "pool"),
}
"""Methods whose work is done here in another form, by the class that they belong to."""


@dataclass(frozen=True)
class Regions:
    """What the second stage looks at.

    Attributes:
        boxes: (N, P, 4) float32, xyxy, in pixels of the images that the network sees, clipped to them.
        is_real: (N, P) bool, False for rows that only fill up.
    """

    boxes: Tensor
    is_real: Tensor


def check_one_stage(rpn: nn.Module) -> None:
    """Raises InputError if the dense stage is of a kind that is not known, or overrides a method that is redone."""
    _check_part(rpn, (DenseStage,), "dense stage")


def check_two_stage(rpn: nn.Module, roi_heads: nn.Module) -> None:
    """Raises InputError if a stage is of a kind that is not known here, or overrides a method that is redone here."""
    _check_part(rpn, (RPN, DenseStage), "first stage")
    _check_part(roi_heads, (CascadeRoIHeads, StandardRoIHeads), "second stage")
    _check_part(roi_heads.pooler, (RoIPooler,), "RoI pooler")
    for head in box_heads(roi_heads):
        _check_part(head, (BoxHead,), "box head")


def _check_part(part: nn.Module, kinds: Sequence[type[nn.Module]], what: str) -> None:
    known = next((kind for kind in kinds if isinstance(part, kind)), None)
    names = " or ".join(kind.__name__ for kind in kinds)
    if known is None:
        raise InputError(f"a {what} of type {type(part).__name__} cannot be exported; use {names}")
    changed = [name for name in REDONE[known] if getattr(type(part), name) is not getattr(known, name)]
    if changed:
        raise InputError(
            f"the {what} {type(part).__name__} cannot be exported, since it has a {changed[0]} of its own; use {names}"
        )


def box_heads(roi_heads: StandardRoIHeads) -> list[BoxHead]:
    """The heads of all stages, one after the other."""
    return list(roi_heads.box) if isinstance(roi_heads, CascadeRoIHeads) else [roi_heads.box]


# -- the first stage --------------------------------------------------------------------------------------------------


def propose(
    stage: RPN | DenseStage, outputs: Outputs | HeadOutputs, anchors: AnchorGrid, sizes: Tensor, suppress: Suppress
) -> Regions:
    """`stage.propose` of all images of `sizes` (N, 2) int64: as many rows as there can be proposals."""
    if isinstance(stage, RPN):
        return _rpn_proposals(stage, outputs, anchors, sizes, suppress)
    found = dense_candidates(stage, outputs, anchors, sizes)
    is_kept = suppress(found.boxes, found.scores, found.labels, 1, stage.selection.nms_thresh)
    ranks = torch.where(is_kept, found.scores, -torch.inf)
    return _best(found.boxes, ranks, stage.selection.max_detections)


def _rpn_proposals(rpn: RPN, outputs: Outputs, anchors: AnchorGrid, sizes: Tensor, suppress: Suppress) -> Regions:
    logits, deltas = outputs
    rule = rpn.test_rule
    ranks, best, levels, nums = [], [], [], []
    start = 0
    for level, count in enumerate(anchors.num_per_level):
        num = smaller(rule.pre_nms, count) if rule.pre_nms else count
        rank, idx = logits[:, start : start + count].float().topk(num, dim=1)  # (N, num)
        ranks.append(rank)
        best.append(idx + start)
        levels.append(torch.full_like(idx, level))
        nums.append(num)
        start += count
    ranks, best, levels = (torch.cat(parts, dim=1) for parts in (ranks, best, levels))  # (N, P)
    deltas = gather_rows(deltas.float(), best)  # (N, P, 4)
    boxes = rpn.coder.decode(deltas.flatten(0, 1), anchors.boxes[best.flatten()]).view_as(deltas)
    boxes = anchors.convention.clip(boxes, size_columns(sizes))
    sides = boxes[..., 2:] - boxes[..., :2]
    is_large = ((sides > 0) & (sides >= rule.min_size)).all(dim=-1)  # (N, P)
    # Suppression takes scores in [0, 1]. The sigmoid of large logits would not keep their order: their places do, since
    # logits fall within each level.
    places = torch.arange(ranks.shape[1], device=ranks.device).float()
    scores = torch.where(is_large, 1 / (1 + places), NO_SCORE)
    is_kept = suppress(boxes, scores, levels, len(nums), rule.nms_thresh)
    if rule.post_nms:
        is_kept = torch.cat([_first(of_level, rule.post_nms) for of_level in is_kept.split(nums, dim=1)], dim=1)
    return _best(boxes, torch.where(is_kept, ranks, -torch.inf), rule.total)


def _first(mask: Tensor, limit: int) -> Tensor:
    """The first `limit` True of each row of `mask` (N, P)."""
    return mask & (mask.long().cumsum(dim=1) <= limit)


def _best(boxes: Tensor, ranks: Tensor, limit: int) -> Regions:
    """The `limit` (0: all) boxes (N, P, 4) of highest rank (N, P), which is -inf for rows that hold none."""
    ranks, order = ranks.sort(dim=1, descending=True, stable=True)
    num = smaller(limit, ranks.shape[1]) if limit else ranks.shape[1]
    is_real = ranks[:, :num] > -torch.inf  # (N, num)
    return Regions(torch.where(is_real[..., None], gather_rows(boxes, order[:, :num]), 0.0), is_real)


# -- the second stage -------------------------------------------------------------------------------------------------


def roi_candidates(roi_heads: StandardRoIHeads, features: list[Tensor], regions: Regions, sizes: Tensor) -> Candidates:
    """`roi_heads.candidates` of all images: a row for each class of each proposal, (N, PK) in all."""
    boxes, heads, stage_logits = regions.boxes, box_heads(roi_heads), []
    for head in heads[:-1]:
        logits, deltas = head(_pooled(roi_heads.pooler, features, boxes))  # (NP, K + 1), (NP, D, 4)
        stage_logits.append(logits)
        refined = head.decode(deltas, boxes.flatten(0, 1), best_class(logits)).view_as(boxes)
        boxes = roi_heads.convention.clip(refined, size_columns(sizes))
    logits, deltas = heads[-1](_pooled(roi_heads.pooler, features, boxes))
    stage_logits.append(logits)
    mean: Callable[[Sequence[Tensor]], Tensor] = getattr(roi_heads, "score_mean", lambda stages: stages[0].softmax(1))
    scores = mean(stage_logits)[:, :-1].unflatten(0, regions.is_real.shape)  # (N, P, K)
    is_candidate = (scores > roi_heads.selection.score_thresh) & regions.is_real[..., None]
    decoded = _decode_all(heads[-1], deltas, boxes.flatten(0, 1), scores.shape[2])  # (NP, K, 4)
    decoded = decoded.reshape(boxes.shape[0], -1, 4)  # (N, PK, 4)
    labels = torch.arange(scores.shape[2], device=scores.device).expand_as(scores)
    return Candidates(
        roi_heads.convention.clip(decoded, size_columns(sizes)),
        torch.where(is_candidate, scores, NO_SCORE).flatten(1),
        labels.flatten(1),
    )


def _decode_all(head: BoxHead, deltas: Tensor, boxes: Tensor, num_classes: int) -> Tensor:
    """Boxes (P, K, 4) of every class that `deltas` (P, D, 4) of regions `boxes` (P, 4) stand for."""
    of_class = boxes[:, None].expand(-1, deltas.shape[1], -1)  # (P, D, 4)
    decoded = head.coder.decode(deltas.flatten(0, 1), of_class.flatten(0, 1)).view_as(deltas)
    return decoded.expand(-1, num_classes, -1)


def _pooled(pooler: RoIPooler, features: list[Tensor], boxes: Tensor) -> Tensor:
    """(NP, C, S, S) of regions (N, P, 4)."""
    image_idx = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)[:, None].expand(boxes.shape[:2])
    boxes = boxes.flatten(0, 1)  # (NP, 4)
    if pooler.aligned and not pooler.sampling_ratio:
        # An empty region has no samples: torch and ONNX Runtime then pool 0, OpenVINO divides 0 by 0.
        shown = pooler.convention.without_last_pixel(boxes)
        is_empty = (shown[:, 2:] <= shown[:, :2]).any(dim=1, keepdim=True)
        boxes = torch.where(is_empty, boxes.new_tensor(OUTSIDE), boxes)
    return pooler.pool(features, boxes, image_idx.flatten())


def suppress_by_class(suppress: Suppress) -> Suppress:
    """A suppression of rows that come as `roi_candidates` gives them, which compares no two classes.

    Each class of each image goes to `suppress` as an image of its own, so that its cost grows with K and not with the
    square of it.
    """

    def form(boxes: Tensor, scores: Tensor, labels: Tensor, num_classes: int, iou_thresh: float) -> Tensor:
        shape = (boxes.shape[0], -1, num_classes)
        boxes = boxes.unflatten(1, (-1, num_classes)).transpose(1, 2).flatten(0, 1)  # (NK, P, 4)
        scores = scores.view(shape).transpose(1, 2).flatten(0, 1)  # (NK, P)
        is_kept = suppress(boxes, scores, torch.zeros_like(scores, dtype=torch.int64), 1, iou_thresh)
        return is_kept.unflatten(0, (-1, num_classes)).transpose(1, 2).flatten(1)  # (N, PK)

    return form
