from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import complete_box_iou_loss, generalized_box_iou

from engine.layers.losses import ciou_loss, diou_loss, focal_loss_sum, giou_loss


def test_focal_loss_by_hand() -> None:
    """One positive at p = 0.8 for class 0 and p = 0.5 for class 1, which it is not."""
    logits = torch.tensor([[math.log(4.0), 0.0]])
    expected = 0.25 * 0.2**2 * -math.log(0.8) + 0.75 * 0.5**2 * -math.log(0.5)
    assert focal_loss_sum(logits, torch.tensor([0]), 0.25, 2.0).item() == pytest.approx(expected)


def test_negative_and_ignored_rows() -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    one_negative = 2 * 0.75 * 0.5**2 * -math.log(0.5)
    loss = focal_loss_sum(logits, torch.tensor([-1, -2, -2]), 0.25, 2.0)
    assert loss.item() == pytest.approx(one_negative)
    loss.backward()
    assert logits.grad[0].all() and not logits.grad[1:].any()


def test_all_ignored_and_no_rows_give_zero_with_a_gradient() -> None:
    for logits, labels in ((torch.ones(2, 3), torch.tensor([-2, -2])), (torch.ones(0, 3), torch.zeros(0).long())):
        logits.requires_grad_()
        loss = focal_loss_sum(logits, labels, 0.25, 2.0)
        loss.backward()
        assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()


@pytest.mark.parametrize("logit", [-1e4, -200.0, 200.0, 1e4])
def test_saturated_logits_are_finite(logit: float) -> None:
    """The reference's gives NaN here."""
    logits = torch.full((2, 2), logit, requires_grad=True)
    loss = focal_loss_sum(logits, torch.tensor([0, -1]), 0.25, 2.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("box", "loss"),
    [
        ([0, 0, 10, 10], 0.0),
        ([0, 0, 10, 5], 0.5),
        ([10, 0, 20, 10], 1.0),  # they touch: no overlap, no gap
        ([20, 0, 30, 10], 1 + 1 / 3),  # a third of the hull is empty
        ([8, 8, 2, 2], 2 - 4 / 100 - 1.0 + 4 / 100),  # inside out: empty, within the other
    ],
)
def test_giou_by_hand(box: list[float], loss: float) -> None:
    truth = torch.tensor([[0.0, 0, 10, 10]])
    assert giou_loss(torch.tensor([box], dtype=torch.float32), truth).item() == pytest.approx(loss, abs=1e-5)


@given(values=st.lists(st.tuples(*[st.floats(0, 100)] * 4, *[st.floats(0.1, 50)] * 4), min_size=1, max_size=5))
def test_giou_equals_torchvisions_matrix(values: list[tuple[float, ...]]) -> None:
    rows = torch.tensor(values, dtype=torch.float64)
    first = torch.cat([rows[:, :2], rows[:, :2] + rows[:, 4:6]], 1)
    second = torch.cat([rows[:, 2:4], rows[:, 2:4] + rows[:, 6:]], 1)
    losses = giou_loss(first, second)
    assert torch.allclose(losses, 1 - generalized_box_iou(first, second).diagonal(), atol=1e-5)
    assert ((losses >= -1e-6) & (losses <= 2 + 1e-6)).all()


@pytest.mark.parametrize(
    ("box", "loss"),
    [
        ([0, 0, 10, 10], 0.0),
        ([0, 0, 10, 5], 0.5 + 2.5**2 / 200),
        ([10, 0, 20, 10], 1 + 100 / 500),  # they touch: the centres are 10 apart, the hull is 20 x 10
        ([20, 0, 30, 10], 1 + 400 / 1000),
        ([8, 8, 2, 2], 1 + 18 / 200),  # inside out: empty, at (8, 8)
    ],
)
def test_diou_by_hand(box: list[float], loss: float) -> None:
    truth = torch.tensor([[0.0, 0, 10, 10]])
    assert diou_loss(torch.tensor([box], dtype=torch.float32), truth).item() == pytest.approx(loss, abs=1e-5)


def test_ciou_by_hand() -> None:
    """A box twice as wide as high in a square: v is the squared angle between the diagonals, in right angles."""
    truth = torch.tensor([[0.0, 0, 10, 10]])
    v = ((math.atan(2) - math.pi / 4) / (math.pi / 2)) ** 2
    expected = 0.5 + 2.5**2 / 200 + v * v / (0.5 + v)
    assert ciou_loss(torch.tensor([[0.0, 0, 10, 5]]), truth).item() == pytest.approx(expected, abs=1e-5)
    assert ciou_loss(truth / 2 + 20, truth).item() == pytest.approx(diou_loss(truth / 2 + 20, truth).item())  # a square


@given(values=st.lists(st.tuples(*[st.floats(0, 100)] * 4, *[st.floats(0.1, 50)] * 4), min_size=1, max_size=5))
def test_ciou_and_its_gradient_equal_torchvisions(values: list[tuple[float, ...]]) -> None:
    rows = torch.tensor(values, dtype=torch.float64)
    first = torch.cat([rows[:, :2], rows[:, :2] + rows[:, 4:6]], 1)
    second = torch.cat([rows[:, 2:4], rows[:, 2:4] + rows[:, 6:]], 1)
    ours, theirs = first.clone().requires_grad_(), first.clone().requires_grad_()
    losses, expected = ciou_loss(ours, second), complete_box_iou_loss(theirs, second)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
    losses.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", [giou_loss, diou_loss, ciou_loss])
@pytest.mark.parametrize("box", [[5, 5, 5, 5], [5, 5, 9, 5], [5, 5, 5, 9], [9, 9, 2, 3], [90000, 5, 90000, 5]])
def test_boxes_without_area_have_finite_losses_and_gradients(loss: Callable, box: list[float]) -> None:
    """On either side: a head may predict them, and an annotation may be a line."""
    empty, square = torch.tensor([box], dtype=torch.float32), torch.tensor([[0.0, 0, 10, 10]])
    for pair in ((empty, square), (square, empty.sort(dim=1).values), (empty, empty.sort(dim=1).values)):
        predicted = pair[0].clone().requires_grad_()
        value = loss(predicted, pair[1])
        value.sum().backward()
        assert value.isfinite().all() and predicted.grad.isfinite().all()


@pytest.mark.parametrize("loss", [giou_loss, diou_loss, ciou_loss])
def test_box_losses_of_no_boxes(loss: Callable) -> None:
    assert loss(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
