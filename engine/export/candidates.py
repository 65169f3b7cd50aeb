"""Scored boxes of a batch in tensors of fixed shapes, for the exported graph, and those of a dense stage.

Shapes: N images, L levels, R anchors per image, P candidates, K classes, D numbers of a code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.export.suppression import NO_SCORE
from engine.modeling.anchors import AnchorGrid
from engine.modeling.dense.stage import DenseStage, HeadOutputs


@dataclass(frozen=True)
class Candidates:
    """Scored boxes of a batch, as many rows for each image; those that hold no box have the score `NO_SCORE`.

    Attributes:
        boxes: (N, P, 4) float32, xyxy, in pixels of the images that the network sees, clipped to them.
        scores: (N, P) float32.
        labels: (N, P) int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def dense_candidates(stage: DenseStage, outputs: HeadOutputs, anchors: AnchorGrid, sizes: Tensor) -> Candidates:
    """`DenseStage.candidates` of all images; of each level the `pre_nms_top_n` best boxes, in the order of anchors."""
    cls_scores = stage.class_scores(outputs)  # (N, R, K)
    centerness = None if outputs.centerness is None else outputs.centerness.float().sigmoid()[..., None]  # (N, R, 1)
    rule, selection, num_classes = stage.score_rule, stage.selection, cls_scores.shape[-1]
    is_candidate = rule.thresholded(cls_scores, centerness) > selection.score_thresh  # (N, R, K)
    ranks = torch.where(is_candidate, rule.ranked(cls_scores, centerness), NO_SCORE).flatten(1)  # (N, RK)
    best = best_per_level(ranks, [num * num_classes for num in anchors.num_per_level], selection.pre_nms_top_n)

    anchor_idx, labels = best // num_classes, best % num_classes  # (N, P) both
    cls = cls_scores.flatten(1).gather(1, best)  # (N, P)
    center = None if centerness is None else centerness[..., 0].gather(1, anchor_idx)  # (N, P)
    scores = torch.where(is_candidate.flatten(1).gather(1, best), rule.final(cls, center), NO_SCORE)
    codes = gather_rows(outputs.codes.float(), anchor_idx)  # (N, P, D)
    boxes = stage.coder.decode(codes.flatten(0, 1), anchors.boxes[anchor_idx.flatten()])  # (NP, 4)
    boxes = boxes.unflatten(0, anchor_idx.shape)  # (N, P, 4)
    boxes = anchors.convention.clip(boxes, size_columns(sizes))
    if stage.drops_empty:
        scores = torch.where((boxes[..., 2:] > boxes[..., :2]).all(-1), scores, NO_SCORE)
    return Candidates(boxes, scores, labels)


def best_per_level(ranks: Tensor, num_per_level: list[int], limit: int) -> Tensor:
    """Which of `ranks` (N, all) are among the `limit` (0: all) best of their level: (N, P) int64, in their order.

    The order decides between boxes of the same score, there as here.
    """
    best, start = [], 0
    for num, level in zip(num_per_level, ranks.split(num_per_level, dim=1), strict=True):
        count = smaller(limit, num) if limit else num
        best.append(level.topk(count, dim=1).indices + start)
        start += num
    return torch.cat(best, dim=1).sort(dim=1).values


def smaller(limit: int, size: int | torch.SymInt) -> int | torch.SymInt:
    """min(limit, size), where `size` is that of a dimension."""
    if not isinstance(size, torch.SymInt):
        return min(limit, int(size))  # a trace has tensors as sizes
    least = known(torch.sym_min(limit, size))
    torch._check(least <= size)
    return least


def known(size: int | torch.SymInt) -> int | torch.SymInt:
    """`size`, at least 1, as a number that the graph computes where an export leaves it open.

    The sizes of all later tensors would otherwise be formulas of it, on which torch's exporter spends minutes.
    """
    if not isinstance(size, torch.SymInt):
        return int(size)
    number = torch.scalar_tensor(size, dtype=torch.int64).item()
    torch._check(number >= 1)
    return number


def gather_rows(x: Tensor, idx: Tensor) -> Tensor:
    """Rows (N, P, D) of `x` (N, R, D) at `idx` (N, P)."""
    return x.gather(1, idx[..., None].expand(-1, -1, x.shape[-1]))


def size_columns(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Heights and widths (N, 1) float32 of `sizes` (N, 2), as `PixelConvention.clip` takes them."""
    return sizes[:, :1].float(), sizes[:, 1:].float()
