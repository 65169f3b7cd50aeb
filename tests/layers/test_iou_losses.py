from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from engine.layers.iou_losses import IOU_LOSSES, giou, iou, linear_iou

rows = st.lists(
    st.tuples(*[st.floats(0.125, 50, width=32)] * 4, *[st.floats(0.125, 50, width=32)] * 4), min_size=1, max_size=6
)


def test_by_hand() -> None:
    """2 x 2 inside 4 x 4: overlap 4, union and hull 16, each plus 1."""
    small, large = torch.tensor([[1.0, 1, 1, 1]]), torch.tensor([[2.0, 2, 2, 2]])
    assert iou(small, large).item() == pytest.approx(-math.log(5 / 17))
    assert linear_iou(small, large).item() == pytest.approx(1 - 5 / 17)
    assert giou(small, large).item() == pytest.approx(1 - 5 / 17)  # the hull is the union
    # 4 x 2 and 2 x 4, crossed: overlap 4, union 12, hull 16.
    wide, high = torch.tensor([[2.0, 1, 2, 1]]), torch.tensor([[1.0, 2, 1, 2]])
    assert giou(wide, high).item() == pytest.approx(1 - 5 / 13 + 4 / 16)


@given(rows)
def test_without_smoothing_giou_is_torchvisions(table: list) -> None:
    both = torch.tensor(table)
    distances, gt = both[:, :4], both[:, 4:]
    sides = torch.tensor([-1.0, -1, 1, 1])
    expected = generalized_box_iou_loss(distances * sides, gt * sides)
    torch.testing.assert_close(giou(distances, gt, smoothing=0.0), expected, rtol=1e-4, atol=1e-4)


@given(rows)
def test_diou_and_ciou_are_those_of_boxes_around_the_point(table: list) -> None:
    both = torch.tensor(table, dtype=torch.float64)
    sides = torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)
    boxes, gt_boxes = both[:, :4] * sides + 100, both[:, 4:] * sides + 100
    for name, expected in (("diou", distance_box_iou_loss), ("ciou", complete_box_iou_loss)):
        losses = IOU_LOSSES.get(name)(both[:, :4], both[:, 4:])
        torch.testing.assert_close(losses, expected(boxes, gt_boxes), rtol=1e-5, atol=1e-5)


@given(rows, st.sampled_from(["iou", "linear_iou", "giou", "diou", "ciou"]))
def test_none_for_the_box_itself_else_more(table: list, name: str) -> None:
    both = torch.tensor(table)
    loss = IOU_LOSSES.get(name)
    assert (loss(both[:, :4], both[:, :4]).abs() < 1e-5).all()
    assert (loss(both[:, :4], both[:, 4:]) > -1e-5).all()


def test_no_rows() -> None:
    nothing = torch.zeros(0, 4)
    assert iou(nothing, nothing).sum() == 0
