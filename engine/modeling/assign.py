"""Which anchor or proposal learns which box.

`match_boxes` is the rule of region proposals and of the second stage: IoU alone. The rules of dense stages are looked
up by name (`MODEL.ATSS.POSITIVE_TYPE`), one function each. All answer with (R,) int64: the index of the ground-truth
box that each anchor learns, NEGATIVE or IGNORED. None keeps an anchors x boxes matrix: ATSS looks only at the nearest
cells of each box, the others go through the boxes in chunks.

Shapes: L levels, A anchors per cell, R anchors (or proposals) per image, M gt boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torchvision.ops import box_iou

from engine.modeling.anchors import AnchorGrid
from engine.registry import Registry
from engine.structures import boxes as box_ops

NEGATIVE, IGNORED = -1, -2
CENTER_MARGIN = 0.01
"""A centre counts as inside a box from this many pixels on (reference)."""
CHUNK_ELEMENTS = 1 << 21
"""Largest anchors x boxes block held at a time: 8 MB in float32."""


@dataclass(frozen=True)
class ImagePredictions:
    """What the head predicts for one image, for rules that depend on it; without gradient.

    Attributes:
        raw_logits: (R, K) in the type of the head's output; see `logits`.
        gt_labels: (M,) int64 classes of the gt boxes, so that a rule can look up their logits.
        decode: returns `boxes`.
    """

    raw_logits: Tensor
    gt_labels: Tensor
    decode: Callable[[], Tensor]

    # Both cost time for tens of thousands of anchors, so they are computed only for a rule that asks for them.

    @cached_property
    def logits(self) -> Tensor:
        """(R, K) float32."""
        return self.raw_logits.float()

    @cached_property
    def boxes(self) -> Tensor:
        """(R, 4) float32 predicted boxes."""
        return self.decode()


class Assigner(Protocol):
    """A rule with its parameters bound."""

    def __call__(self, anchors: AnchorGrid, gt_boxes: Tensor, predictions: ImagePredictions | None = None) -> Tensor:
        """What each anchor learns (R,): an index into `gt_boxes` (M, 4), NEGATIVE or IGNORED.

        `predictions` is None where there is no model that predicts (tools/analyze_anchors.py).
        """
        ...


BoxMatcher = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`match_boxes` with its thresholds bound: (boxes (R, 4), gt boxes (M, 4)) -> matched (R,), IoUs (R,)."""

ASSIGNERS = Registry("ASSIGNERS")
"""`Assigner` by the name in `MODEL.ATSS.POSITIVE_TYPE`, with its own parameters after those three."""


def match_boxes(
    boxes: Tensor,
    gt_boxes: Tensor,
    fg_iou_thresh: float,
    bg_iou_thresh: float,
    low_quality_iou: float | None = None,
    low_quality_own: bool = False,
) -> tuple[Tensor, Tensor]:
    """The gt box that each box learns, and its IoU with the nearest one.

    Args:
        boxes: (R, 4).
        gt_boxes: (M, 4), possibly none: then every box is negative.
        fg_iou_thresh: positive from this IoU on.
        bg_iou_thresh: negative below this IoU; between the two a box is ignored.
        low_quality_iou: the best boxes of each gt box are positive too if their IoU with it is at least this and more
            than 0; below 0, whatever their IoU is (the reference's RetinaNet). None: they are not.
        low_quality_own: such a box learns the gt box that it is best for (mmdetection) instead of the one that it
            overlaps most itself (the reference, detectron2).

    Returns:
        (R,) int64 index of a gt box, NEGATIVE or IGNORED; (R,) float32 IoU.
    """
    best_iou = boxes.new_zeros(len(boxes))
    if len(gt_boxes) == 0 or len(boxes) == 0:
        return torch.full_like(best_iou, NEGATIVE, dtype=torch.int64), best_iou
    best_iou -= 1  # so that an IoU of 0 names a box too
    best_gt = torch.zeros_like(best_iou, dtype=torch.int64)
    is_rescued = torch.zeros_like(best_gt, dtype=torch.bool)
    own_gt = torch.zeros_like(best_gt)  # the last gt box that each box is a best one of
    for chunk in chunks(len(boxes), len(gt_boxes)):
        ious = box_iou(gt_boxes[chunk], boxes)  # (m, R)
        iou, gt_idx = ious.max(dim=0)
        is_better = iou > best_iou
        best_iou = torch.where(is_better, iou, best_iou)
        best_gt = torch.where(is_better, gt_idx + chunk.start, best_gt)
        if low_quality_iou is not None:
            best_of_gt = ious.amax(dim=1, keepdim=True)  # (m, 1)
            is_enough = (best_of_gt >= low_quality_iou) & ((best_of_gt > 0) | (low_quality_iou < 0))
            is_best = (ious == best_of_gt) & is_enough  # all equal ones: IoUs of a regular grid tie often
            is_rescued |= is_best.any(dim=0)
            if low_quality_own:
                numbers = torch.arange(chunk.start, chunk.stop, device=boxes.device)[:, None]
                own_gt = torch.maximum(own_gt, torch.where(is_best, numbers, 0).amax(dim=0))
    matched = torch.where(best_iou < bg_iou_thresh, NEGATIVE, IGNORED)
    matched = torch.where(best_iou >= fg_iou_thresh, best_gt, matched)
    return torch.where(is_rescued, own_gt if low_quality_own else best_gt, matched), best_iou


def ignore_covered(matched: Tensor, boxes: Tensor, regions: Tensor, min_overlap: float = 0.5) -> Tensor:
    """`matched` (R,) with the negatives among `boxes` (R, 4) that lie in `regions` (M, 4) turned to IGNORED.

    A box lies in a region when at least `min_overlap` of its area does, which is how COCO's evaluation forgives
    detections in crowds.
    """
    if len(regions) == 0 or len(boxes) == 0:
        return matched
    min_areas = min_overlap * box_ops.area(boxes)
    is_covered = torch.zeros_like(matched, dtype=torch.bool)
    for region in regions:  # one by one: crowds are few, and a boxes x regions matrix is not kept
        is_covered |= _intersection(boxes, region[None]) >= min_areas
    return torch.where(is_covered & (matched == NEGATIVE), IGNORED, matched)


@ASSIGNERS.register("ATSS")
def assign_atss(
    anchors: AnchorGrid, gt_boxes: Tensor, predictions: ImagePredictions | None = None, topk: int = 9
) -> Tensor:
    """Adaptive training sample selection (Zhang et al., 2020, algorithm 1).

    On each level the anchors of the `topk` cells nearest to a box's centre are its candidates. Those whose IoU with it
    is at least the candidates' mean + standard deviation, and whose centre lies in it, are positive; an anchor wanted
    by several boxes goes to the one of largest IoU. Work and memory grow with M L A topk^2, not with R M.
    """
    if len(gt_boxes) == 0:
        return all_negative(anchors)
    candidates = _nearest_anchors(anchors, box_ops.centers(gt_boxes), topk)  # (M, C), C the same for every box
    boxes = anchors.boxes[candidates]  # (M, C, 4)
    ious = box_ops.iou_of_rows(gt_boxes[:, None], boxes)  # (M, C)
    threshold = ious.mean(dim=1) + _std(ious)  # (M,); high where one level fits far better than the others
    sides = side_distances(box_ops.centers(boxes), gt_boxes[:, None], anchors.convention.inset)  # (M, C, 4)
    is_positive = (ious >= threshold[:, None]) & (sides.amin(-1) > CENTER_MARGIN)
    gt_idx, _ = is_positive.nonzero(as_tuple=True)
    return resolve_conflicts(anchors, candidates[is_positive], gt_idx, ious[is_positive])


@ASSIGNERS.register("TOPK")
def assign_topk(
    anchors: AnchorGrid, gt_boxes: Tensor, predictions: ImagePredictions | None = None, topk: int = 9
) -> Tensor:
    """The `topk` anchors of largest IoU over all levels are positive, nearer ones first among equals (reference).

    An anchor must have its centre inside the box; one wanted by several boxes goes to the one of largest IoU.
    """
    if len(gt_boxes) == 0:
        return all_negative(anchors)
    anchor_centers = box_ops.centers(anchors.boxes)
    gt_centers = box_ops.centers(gt_boxes)
    farthest = max(_distances(gt_centers[c], anchor_centers).max() for c in chunks(len(anchors.boxes), len(gt_boxes)))
    found = []
    for chunk in chunks(len(anchors.boxes), len(gt_boxes)):
        ious = box_iou(gt_boxes[chunk], anchors.boxes)  # (m, R)
        distances = _distances(gt_centers[chunk], anchor_centers)  # (m, R)
        # A thousandth of the relative distance decides between equal IoUs, most of which are 0.
        best = (ious - distances / farthest / 1000).topk(min(topk, ious.shape[1]), dim=1).indices
        centers = anchor_centers[best]  # (m, topk, 2)
        sides = side_distances(centers, gt_boxes[chunk][:, None], anchors.convention.inset)
        is_positive = sides.amin(-1) > CENTER_MARGIN
        gt_idx = is_positive.nonzero(as_tuple=True)[0] + chunk.start
        found.append((best[is_positive], gt_idx, ious.gather(1, best)[is_positive]))
    return resolve_conflicts(anchors, *(torch.cat(parts) for parts in zip(*found, strict=True)))


def assign_max_iou(
    anchors: AnchorGrid,
    gt_boxes: Tensor,
    predictions: ImagePredictions | None = None,
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
) -> Tensor:
    """The rule of RetinaNet: `match_boxes`, and the best anchors of every box are positive whatever their IoU."""
    return match_boxes(anchors.boxes, gt_boxes, fg_iou_thresh, bg_iou_thresh, low_quality_iou=-1.0)[0]


@ASSIGNERS.register("IoU")
def assign_iou(
    anchors: AnchorGrid,
    gt_boxes: Tensor,
    predictions: ImagePredictions | None = None,
    fg_iou_thresh: float = 0.5,
    bg_iou_thresh: float = 0.4,
) -> Tensor:
    """Like `assign_max_iou`, except that a positive anchor whose centre lies outside its box is ignored (ATSS's
    ablation).
    """
    matched = assign_max_iou(anchors, gt_boxes, None, fg_iou_thresh, bg_iou_thresh)
    if len(gt_boxes) == 0:
        return matched
    sides = side_distances(box_ops.centers(anchors.boxes), gt_boxes[matched.clamp(min=0)], anchors.convention.inset)
    is_outside = sides.amin(-1) <= CENTER_MARGIN
    return torch.where((matched >= 0) & is_outside, IGNORED, matched)


@ASSIGNERS.register("SSC")
def assign_ssc(
    anchors: AnchorGrid,
    gt_boxes: Tensor,
    predictions: ImagePredictions | None = None,
    level_ranges: Sequence[tuple[float, float]] = (
        (-1, 64),
        (64, 128),
        (128, 256),
        (256, 512),
        (512, 1e8),
    ),
    margin: float = CENTER_MARGIN,
    radius: float = 0.0,
) -> Tensor:
    """Spatial and scale constraint (FCOS, Tian et al., 2019, section 3.2).

    An anchor is positive if its centre lies in a box and the farthest side is within the range of its level (both ends
    included); the box of smallest area wins, the first among equals.

    Args:
        level_ranges: smallest and largest distance of the farthest side on each level, pixels.
        margin: a centre counts as inside from this many pixels on.
        radius: besides, the centre must be within this many strides of the box's centre, along both axes; 0 for
            anywhere in the box (FCOS's centre sampling).

    Raises:
        ValueError: `level_ranges` is shorter than the number of levels.
    """
    if len(gt_boxes) == 0:
        return all_negative(anchors)
    limits = torch.stack([_per_anchor(anchors, ends) for ends in zip(*level_ranges, strict=True)], dim=1)  # (R, 2)
    centers = box_ops.centers(anchors.boxes)
    reach = _per_anchor(anchors, [radius * stride if radius > 0 else torch.inf for stride in anchors.strides])
    gt_centers = box_ops.centers(gt_boxes)
    areas = box_ops.area(gt_boxes)
    best_area = anchors.boxes.new_full((len(anchors.boxes),), torch.inf)
    matched = all_negative(anchors)
    for chunk in chunks(len(anchors.boxes), len(gt_boxes)):
        sides = side_distances(centers, gt_boxes[chunk][:, None], anchors.convention.inset)  # (m, R, 4)
        farthest = sides.amax(-1)
        allowed = (sides.amin(-1) > margin) & (farthest >= limits[:, 0]) & (farthest <= limits[:, 1])
        allowed &= (centers - gt_centers[chunk][:, None]).abs().amax(-1) < reach
        # A point inside several boxes learns the smallest; larger boxes have other points.
        area, gt_idx = torch.where(allowed, areas[chunk][:, None], torch.inf).min(dim=0)
        better = area < best_area
        best_area = torch.where(better, area, best_area)
        matched = torch.where(better, gt_idx + chunk.start, matched)
    return matched


def all_negative(anchors: AnchorGrid) -> Tensor:
    """What a rule answers if there is no box: NEGATIVE (R,)."""
    return torch.full((len(anchors.boxes),), NEGATIVE, dtype=torch.int64, device=anchors.boxes.device)


def _per_anchor(anchors: AnchorGrid, per_level: Sequence[float]) -> Tensor:
    """(R,): a value of each level, for each of its anchors."""
    values = [
        anchors.boxes.new_full((count,), value) for value, count in zip(per_level, anchors.num_per_level, strict=True)
    ]
    return torch.cat(values)


def chunks(num_boxes: int, num_gt: int) -> Iterator[slice]:
    """Slices of the gt boxes, such that a matrix of one of them by all boxes has about CHUNK_ELEMENTS."""
    step = max(1, CHUNK_ELEMENTS // num_boxes)
    for start in range(0, num_gt, step):
        yield slice(start, min(start + step, num_gt))


def _distances(points: Tensor, others: Tensor) -> Tensor:
    """(M, R); not by a matrix product, whose rounding depends on how many boxes a chunk has."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def side_distances(centers: Tensor, boxes: Tensor, inset: float) -> Tensor:
    """Distances (..., 4) from `centers` (..., 2) to the left, top, right and bottom of `boxes`; negative outside."""
    return torch.cat([centers - boxes[..., :2], boxes[..., 2:] - centers], dim=-1) - inset


def _intersection(boxes: Tensor, others: Tensor) -> Tensor:
    sides = torch.minimum(boxes[..., 2:], others[..., 2:]) - torch.maximum(boxes[..., :2], others[..., :2])
    return sides.clamp(min=0).prod(-1)


def _std(x: Tensor) -> Tensor:
    """Unbiased standard deviation (M,) of rows (M, C); of one value it is 0."""
    return x.std(dim=1) if x.shape[1] > 1 else x.new_zeros(len(x))


def _nearest_anchors(anchors: AnchorGrid, points: Tensor, topk: int) -> Tensor:
    """Indices (M, C) of the anchors of the `topk` cells of each level nearest to `points` (M, 2).

    The topk nearest cells of a grid lie in the topk nearest rows and the topk nearest columns, both runs of neighbours:
    a cell outside them has topk nearer ones in its own row or column.
    """
    nearest, start = [], 0
    for grid, step, count in zip(anchors.grids, anchors.steps, anchors.num_per_level, strict=True):
        origin = box_ops.centers(anchors.boxes[start])  # (2,) centre of the first cell
        # In cells, across and down; the steps stay Python numbers, since a tensor of them would block a GPU.
        position = torch.stack([(points[:, 0] - origin[0]) / step[1], (points[:, 1] - origin[1]) / step[0]], dim=1)
        num_rows, num_cols = min(topk, grid[0]), min(topk, grid[1])
        cols = _nearest_run(position[:, 0], num_cols, grid[1])  # (M, num_cols)
        rows = _nearest_run(position[:, 1], num_rows, grid[0])  # (M, num_rows)
        dx = (position[:, 0:1] - cols) * (step[1] / step[0])  # in rows, as dy: cells need not be square
        dy = position[:, 1:2] - rows
        distances = (dy.square()[:, :, None] + dx.square()[:, None, :]).flatten(1)  # (M, rows*cols)
        cells = (rows[:, :, None] * grid[1] + cols[:, None, :]).flatten(1)
        best = distances.topk(min(topk, cells.shape[1]), dim=1, largest=False).indices
        cells = cells.gather(1, best)  # (M, k)
        in_cell = torch.arange(anchors.per_cell, device=cells.device)
        nearest.append(start + (cells[:, :, None] * anchors.per_cell + in_cell).flatten(1))
        start += count
    return torch.cat(nearest, dim=1)


def _nearest_run(position: Tensor, length: int, limit: int) -> Tensor:
    """The `length` neighbouring integers of 0..limit-1 nearest to `position` (M,): (M, length) int64."""
    first = (position - (length - 1) / 2).round().clamp(0, limit - length).long()
    return first[:, None] + torch.arange(length, device=position.device)


def resolve_conflicts(anchors: AnchorGrid, anchor_idx: Tensor, gt_idx: Tensor, ious: Tensor) -> Tensor:
    """Give each anchor of the pairs (anchor_idx, gt_idx) to its box of largest IoU, the first among equals."""
    # Two passes instead of a matrix: the largest IoU per anchor, then the first box that reaches it.
    best = anchors.boxes.new_full((len(anchors.boxes),), -1.0)
    best.scatter_reduce_(0, anchor_idx, ious, "amax")
    wins = ious == best[anchor_idx]
    nobody = torch.iinfo(torch.int64).max
    matched = torch.full_like(best, 0, dtype=torch.int64).fill_(nobody)
    matched.scatter_reduce_(0, anchor_idx[wins], gt_idx[wins], "amin")
    return torch.where(matched == nobody, NEGATIVE, matched)
