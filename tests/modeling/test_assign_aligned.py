from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.modeling.anchors import AnchorGenerator, AnchorGrid
from engine.modeling.assign import CENTER_MARGIN, CHUNK_ELEMENTS, NEGATIVE, ImagePredictions
from engine.modeling.assign_aligned import Alignment, aligned_quality, assign_task_aligned
from engine.structures import CONTINUOUS
from engine.structures import boxes as box_ops


def row(count: int) -> AnchorGrid:
    """One row of anchors of 10 x 10 pixels whose centres are (5, 5), (15, 5), ..."""
    lefts = torch.arange(count) * 10.0
    boxes = torch.stack([lefts, torch.zeros(count), lefts + 10, torch.full((count,), 10.0)], dim=1)
    return AnchorGrid(boxes, [(1, count)], [(10, 10)], [10], 1, CONTINUOUS)


def predicted(boxes: Tensor, scores: list[list[float]], labels: list[int]) -> ImagePredictions:
    return ImagePredictions(torch.tensor(scores).logit(), torch.tensor(labels), lambda: boxes)


def test_the_best_aligned_anchors_inside_the_box_are_positive() -> None:
    gt = torch.tensor([[0.0, 0.0, 40.0, 10.0]])
    boxes = torch.tensor([[0.0, 0, 40, 10], [0, 0, 20, 10], [0, 0, 40, 10], [0, 0, 40, 10], [0, 0, 40, 10]])
    scores = [[0.2], [1.0], [0.1], [0.05], [0.9]]
    # metrics: .2, 1/64, .1, .05, .9 (whose centre is outside the box, but counts among the best)
    matched = assign_task_aligned(row(5), gt, predicted(boxes, scores, [0]), topk=3)
    assert matched.tolist() == [0, NEGATIVE, 0, NEGATIVE, NEGATIVE]


def test_only_the_score_of_the_own_class_counts() -> None:
    gt = torch.tensor([[0.0, 0.0, 30.0, 10.0]])
    boxes = gt.expand(3, 4)
    matched = assign_task_aligned(row(3), gt, predicted(boxes, [[0.9, 0.1], [0.2, 0.3], [0.8, 0.2]], [1]), topk=1)
    assert matched.tolist() == [NEGATIVE, 0, NEGATIVE]


def test_a_box_that_no_prediction_meets_gets_no_anchor() -> None:
    gt = torch.tensor([[0.0, 0.0, 30.0, 10.0]])
    apart = torch.tensor([[50.0, 0.0, 60.0, 10.0]]).expand(3, 4)
    assert (assign_task_aligned(row(3), gt, predicted(apart, [[0.9]] * 3, [0])) == NEGATIVE).all()


def test_conflicts_go_to_the_box_that_the_prediction_overlaps_most() -> None:
    gt = torch.tensor([[0.0, 0.0, 30.0, 10.0], [0.0, 0.0, 20.0, 10.0]])
    boxes = torch.tensor([[0.0, 0, 20, 10], [0, 0, 28, 10], [0, 0, 30, 10]])
    matched = assign_task_aligned(row(3), gt, predicted(boxes, [[0.5, 0.9]] * 3, [0, 1]))
    assert matched.tolist() == [1, 0, 0]


def test_the_copy_of_a_box_gets_no_anchor() -> None:
    gt = torch.tensor([[0.0, 0.0, 30.0, 10.0]]).expand(2, 4)
    matched = assign_task_aligned(row(3), gt, predicted(gt[:1].expand(3, 4), [[0.5]] * 3, [0, 0]))
    assert matched.tolist() == [0, 0, 0]


def test_no_boxes() -> None:
    none = ImagePredictions(torch.zeros(3, 2), torch.zeros(0, dtype=torch.int64), lambda: row(3).boxes)
    assert assign_task_aligned(row(3), torch.zeros(0, 4), none).tolist() == [NEGATIVE] * 3
    assert assign_task_aligned(row(3), torch.zeros(0, 4)).tolist() == [NEGATIVE] * 3


def test_without_predictions_the_anchors_stand_for_them() -> None:
    gt = torch.tensor([[2.0, 0.0, 30.0, 10.0]])  # covers 8, 10 and 10 of the first three anchors
    assert assign_task_aligned(row(4), gt, topk=2).tolist() == [NEGATIVE, 0, 0, NEGATIVE]
    assert assign_task_aligned(row(4), gt).tolist() == [0, 0, 0, NEGATIVE]


def test_qualities_reach_the_largest_iou_of_each_box() -> None:
    metrics, ious = torch.tensor([0.1, 0.4, 0.2, 0.0]), torch.tensor([0.5, 0.8, 0.9, 0.3])
    qualities = aligned_quality(metrics, ious, torch.tensor([0, 0, 2, 3]), num_gt=4)
    # Box 0: .9 is of box 2, so 0.8 is its largest IoU: .1 / .4 * .8. A metric of 0 stays 0.
    torch.testing.assert_close(qualities, torch.tensor([0.2, 0.8, 0.9, 0.0]), rtol=1e-5, atol=0)
    assert aligned_quality(metrics[:0], ious[:0], torch.zeros(0, dtype=torch.int64), 2).shape == (0,)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1 << 30), num_gt=st.integers(1, 30), topk=st.integers(1, 200))
def test_equal_to_the_matrix_form(seed: int, num_gt: int, topk: int) -> None:
    """The rule again in float64 with whole anchors x boxes matrices, inverted predictions included."""
    generator = torch.Generator().manual_seed(seed)
    strides = [16, 32]
    anchors = AnchorGenerator([[64], [128]], [1.0], strides, CONTINUOUS)(
        [torch.zeros(1, 1, 8, 6), torch.zeros(1, 1, 4, 3)]
    )
    corners = torch.rand(num_gt, 2, generator=generator) * 80
    gt = torch.cat([corners, corners + 4 + torch.rand(num_gt, 2, generator=generator) * 60], dim=1)
    labels = torch.randint(0, 3, (num_gt,), generator=generator)
    near = gt[torch.randint(0, num_gt, (len(anchors.boxes),), generator=generator)]
    boxes = near + torch.randn(near.shape, generator=generator) * 10
    logits = torch.randn(len(boxes), 3, generator=generator)
    matched = assign_task_aligned(anchors, gt, ImagePredictions(logits, labels, lambda: boxes), topk)

    proper = torch.cat([boxes[:, :2], boxes.maximum(boxes.roll(2, dims=1))[:, 2:]], dim=1)
    ious = box_ops.iou_of_rows(proper[:, None], gt)  # (R, M)
    metrics = Alignment()(logits[:, labels].sigmoid(), ious)
    centers = box_ops.centers(anchors.boxes)[:, None]
    inside = torch.cat([centers - gt[:, :2], gt[:, 2:] - centers], dim=-1).amin(-1) > CENTER_MARGIN
    kth = metrics.topk(min(topk, len(boxes)), dim=0).values[-1]
    is_candidate = (metrics >= kth) & (metrics > 0) & inside
    expected = torch.where(is_candidate.any(1), torch.where(is_candidate, ious, -1).argmax(1), NEGATIVE)
    assert torch.equal(matched, expected)


def test_chunks_of_boxes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    lefts = torch.rand(40, 1, generator=generator) * 300
    gt = torch.cat([lefts, torch.zeros(40, 1), lefts + 50, torch.full((40, 1), 10.0)], dim=1)
    boxes = gt[torch.randint(0, 40, (40,), generator=generator)] + torch.rand(40, 4, generator=generator)
    predictions = ImagePredictions(
        torch.randn(40, 1, generator=generator), torch.zeros(40, dtype=torch.int64), lambda: boxes
    )
    whole = assign_task_aligned(row(40), gt, predictions)
    assert (whole >= 0).any() and CHUNK_ELEMENTS > 40 * 40
    monkeypatch.setattr("engine.modeling.assign.CHUNK_ELEMENTS", 3 * 40)
    assert torch.equal(assign_task_aligned(row(40), gt, predictions), whole)
