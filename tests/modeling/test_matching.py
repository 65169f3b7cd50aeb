from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from engine.modeling import assign
from engine.modeling.assign import IGNORED, NEGATIVE, ignore_covered, match_boxes
from engine.structures import boxes as box_ops

box_lists = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 30), st.integers(1, 30)), max_size=12
)


def as_boxes(rows: list) -> torch.Tensor:
    return box_ops.from_xywh(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4))


# IoUs with the box 0..10: 1.0, 0.6, 0.4, 0.
BOXES = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 10, 6], [0.0, 0, 10, 4], [20.0, 0, 30, 10]])
BOX = torch.tensor([[0.0, 0, 10, 10]])


def test_thresholds_by_hand() -> None:
    matched, ious = match_boxes(BOXES, BOX, fg_iou_thresh=0.6, bg_iou_thresh=0.3)
    assert matched.tolist() == [0, 0, IGNORED, NEGATIVE]
    torch.testing.assert_close(ious, torch.tensor([1.0, 0.6, 0.4, 0.0]))
    assert match_boxes(BOXES, BOX, 0.5, 0.5)[0].tolist() == [0, 0, NEGATIVE, NEGATIVE]


def test_best_boxes_of_each_are_rescued() -> None:
    boxes = BOXES[2:]  # the best has 0.4 only
    assert match_boxes(boxes, BOX, 0.7, 0.3)[0].tolist() == [IGNORED, NEGATIVE]
    assert match_boxes(boxes, BOX, 0.7, 0.3, low_quality_iou=0.0)[0].tolist() == [0, NEGATIVE]
    assert match_boxes(boxes, BOX, 0.7, 0.3, low_quality_iou=0.3)[0].tolist() == [0, NEGATIVE]
    assert match_boxes(boxes, BOX, 0.7, 0.3, low_quality_iou=0.41)[0].tolist() == [IGNORED, NEGATIVE]


def test_a_box_that_nobody_overlaps_rescues_none() -> None:
    far = torch.tensor([[100.0, 100, 110, 110]])
    assert (match_boxes(BOXES, far, 0.7, 0.3, low_quality_iou=0.0)[0] == NEGATIVE).all()


def test_which_box_a_rescued_one_learns() -> None:
    # The only box overlaps both gt boxes, the first one more; it is the best of both.
    box, gt = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 0, 10, 6], [0.0, 0, 10, 4]])
    assert match_boxes(box, gt, 0.7, 0.3, low_quality_iou=0.0)[0].tolist() == [0]
    assert match_boxes(box, gt, 0.7, 0.3, low_quality_iou=0.3, low_quality_own=True)[0].tolist() == [1]


def test_nothing_to_match() -> None:
    assert match_boxes(BOXES, torch.zeros(0, 4), 0.7, 0.3)[0].tolist() == [NEGATIVE] * 4
    matched, ious = match_boxes(torch.zeros(0, 4), BOX, 0.7, 0.3, low_quality_iou=0.0)
    assert len(matched) == len(ious) == 0


@settings(max_examples=60, deadline=None)
@given(box_lists, box_lists, st.booleans())
def test_equals_the_dense_table_in_any_chunks(rows: list, gt_rows: list, own: bool) -> None:
    boxes, gt_boxes = as_boxes(rows), as_boxes(gt_rows)
    whole = match_boxes(boxes, gt_boxes, 0.5, 0.3, 0.1, own)
    before = assign.CHUNK_ELEMENTS
    assign.CHUNK_ELEMENTS = 2 * max(1, len(boxes))
    try:
        chunked = match_boxes(boxes, gt_boxes, 0.5, 0.3, 0.1, own)
    finally:
        assign.CHUNK_ELEMENTS = before
    for one, other in zip(whole, chunked, strict=True):
        assert torch.equal(one, other)
    if not len(boxes) or not len(gt_boxes):
        return
    matched, ious = whole
    table = box_iou(boxes, gt_boxes)
    torch.testing.assert_close(ious, table.amax(1))
    for i, index in enumerate(matched.tolist()):
        is_best = (table[i] == table.amax(0)) & (table[i] >= 0.1)
        if index >= 0:
            assert table[i, index] >= 0.5 or is_best.any()
        else:
            assert not is_best.any() and table[i].max() < (0.5 if index == IGNORED else 0.3)


def test_regions_silence_negatives_only() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [10.0, 0, 20, 10], [20.0, 0, 30, 10]])
    region = torch.tensor([[0.0, 0, 24, 10]])  # all of the first two, 40 % of the third
    assert ignore_covered(torch.tensor([0, NEGATIVE, NEGATIVE]), boxes, region).tolist() == [0, IGNORED, NEGATIVE]
    untouched = torch.tensor([NEGATIVE] * 3)
    assert torch.equal(ignore_covered(untouched, boxes, torch.zeros(0, 4)), untouched)
