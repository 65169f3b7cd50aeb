"""Which box learns which ground truth, by IoU alone: the rule of region proposals and of proposals in the second stage.

Shapes: R boxes (anchors or proposals), M gt boxes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.ops import box_iou

from engine.modeling.assign import IGNORED, NEGATIVE
from engine.structures import boxes as box_ops

CHUNK_ELEMENTS = 1 << 21
"""Largest boxes x gt boxes block held at a time: 8 MB in float32."""


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
        low_quality_iou: the best boxes of each gt box are positive, too, if their IoU with it is at least this and more
            than 0. None: they are not.
        low_quality_own: such a box learns the gt box that it is best of (mmdetection) and not the one it overlaps most
            itself (the reference, detectron2).

    Returns:
        (R,) int64 index of a gt box, NEGATIVE or IGNORED; (R,) float32 IoU.
    """
    best_iou = boxes.new_zeros(len(boxes))
    if len(gt_boxes) == 0 or len(boxes) == 0:
        return torch.full_like(best_iou, NEGATIVE, dtype=torch.int64), best_iou
    best_iou -= 1  # so that an IoU of 0 names a box, too
    best_gt = torch.zeros_like(best_iou, dtype=torch.int64)
    rescued = torch.full_like(best_gt, NEGATIVE)  # the last gt box that each box is a best one of
    for chunk in _chunks(len(boxes), len(gt_boxes)):
        ious = box_iou(gt_boxes[chunk], boxes)  # (m, R)
        iou, gt_idx = ious.max(dim=0)
        is_better = iou > best_iou
        best_iou = torch.where(is_better, iou, best_iou)
        best_gt = torch.where(is_better, gt_idx + chunk.start, best_gt)
        if low_quality_iou is not None:
            best_of_gt = ious.amax(dim=1, keepdim=True)  # (m, 1)
            is_best = (ious == best_of_gt) & (best_of_gt >= low_quality_iou) & (best_of_gt > 0)
            numbers = torch.arange(chunk.start, chunk.stop, device=boxes.device)[:, None]
            rescued = torch.maximum(rescued, torch.where(is_best, numbers, NEGATIVE).amax(dim=0))
    matched = torch.where(best_iou < bg_iou_thresh, NEGATIVE, IGNORED)
    matched = torch.where(best_iou >= fg_iou_thresh, best_gt, matched)
    return torch.where(rescued >= 0, rescued if low_quality_own else best_gt, matched), best_iou


def ignore_covered(matched: Tensor, boxes: Tensor, regions: Tensor, min_overlap: float = 0.5) -> Tensor:
    """`matched` (R,) with the negatives among `boxes` (R, 4) that lie in `regions` (M, 4) turned to IGNORED.

    A box lies in a region when at least `min_overlap` of its area does, which is how COCO's evaluation forgives
    detections in crowds.
    """
    if len(regions) == 0 or len(boxes) == 0:
        return matched
    areas = box_ops.area(boxes)
    is_covered = torch.zeros_like(matched, dtype=torch.bool)
    for region in regions:
        sides = torch.minimum(boxes[:, 2:], region[2:]) - torch.maximum(boxes[:, :2], region[:2])
        is_covered |= sides.clamp(min=0).prod(dim=1) >= min_overlap * areas
    return torch.where(is_covered & (matched == NEGATIVE), IGNORED, matched)


def _chunks(num_boxes: int, num_gt: int) -> Iterator[slice]:
    step = max(1, CHUNK_ELEMENTS // num_boxes)
    for start in range(0, num_gt, step):
        yield slice(start, min(start + step, num_gt))
