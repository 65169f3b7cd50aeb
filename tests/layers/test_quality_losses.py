from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.layers.losses import focal_loss_sum
from engine.layers.quality_losses import distribution_focal_loss, quality_focal_loss_sum, varifocal_loss_sum

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
POSITIVE, NEGATIVE, IGNORED = 0, -1, -2


@pytest.mark.parametrize(
    ("logit", "label", "quality", "expected"),
    [
        (0.0, POSITIVE, 1.0, 0.25 * LN2),  # sigmoid 0.5
        (0.0, POSITIVE, 0.5, 0.0),  # as good as it says
        (0.0, POSITIVE, 0.0, 0.25 * LN2),
        (0.0, NEGATIVE, None, 0.25 * LN2),
        (0.0, IGNORED, None, 0.0),
        (LN3, POSITIVE, 0.25, 0.25 * (0.25 * (LN4 - LN3) + 0.75 * LN4)),  # sigmoid 0.75, 0.5 away
        (LN3, NEGATIVE, None, 0.5625 * LN4),
        (200.0, NEGATIVE, None, 200.0),
        (-200.0, POSITIVE, 1.0, 200.0),
    ],
)
def test_quality_focal_by_hand(logit: float, label: int, quality: float | None, expected: float) -> None:
    qualities = torch.tensor([] if quality is None else [quality])
    loss = quality_focal_loss_sum(torch.tensor([[logit]]), torch.tensor([label]), qualities)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("logit", "label", "quality", "expected"),
    [
        (0.0, POSITIVE, 1.0, LN2),
        (0.0, POSITIVE, 0.5, 0.5 * LN2),
        (0.0, POSITIVE, 0.0, 0.75 * 0.25 * LN2),  # as a negative
        (0.0, NEGATIVE, None, 0.75 * 0.25 * LN2),
        (0.0, IGNORED, None, 0.0),
        (LN3, POSITIVE, 0.25, 0.25 * (0.25 * (LN4 - LN3) + 0.75 * LN4)),
    ],
)
def test_varifocal_by_hand(logit: float, label: int, quality: float | None, expected: float) -> None:
    qualities = torch.tensor([] if quality is None else [quality])
    loss = varifocal_loss_sum(torch.tensor([[logit]]), torch.tensor([label]), qualities)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        ([0.0, 0.0], 0.3, LN2),
        ([0.0, 0.0, 0.0, 0.0], 1.5, LN4),
        ([0.0, LN3], 0.0, LN4),  # shares 1/4 and 3/4
        ([0.0, LN3], 0.5, LN4 / 2 + (LN4 - LN3) / 2),
        ([LN3, 0.0, -1000.0], 0.25, 0.75 * (LN4 - LN3) + 0.25 * LN4),
    ],
)
def test_distribution_focal_by_hand(logits: list[float], target: float, expected: float) -> None:
    loss = distribution_focal_loss(torch.tensor([logits]), torch.tensor([target]))
    torch.testing.assert_close(loss, torch.tensor([expected]))


def test_classes_and_rows_keep_to_themselves() -> None:
    """Two images of two rows: the qualities go to the positives in their order, to the column of their label."""
    logits = torch.zeros(2, 2, 3, requires_grad=True)
    labels = torch.tensor([[2, NEGATIVE], [IGNORED, 0]])
    quality_focal_loss_sum(logits, labels, torch.tensor([1.0, 0.5])).backward()
    is_zero = logits.grad == 0
    assert is_zero[1].tolist() == [[True] * 3, [True, False, False]]  # as good as it says
    assert (logits.grad[0, 0] < 0).tolist() == [False, False, True]
    assert (logits.grad[0, 1] > 0).all()


@given(st.floats(-8, 8), st.sampled_from([POSITIVE, NEGATIVE]), st.floats(0.5, 4))
def test_with_qualities_of_one_it_is_twice_the_balanced_focal_loss(logit: float, label: int, gamma: float) -> None:
    """Focal loss with alpha 0.5 weighs positives and negatives by a half each; without alpha the two are the same."""
    logits, labels = torch.tensor([[logit]], dtype=torch.float64), torch.tensor([label])
    ones = torch.ones(int(label >= 0), dtype=torch.float64)
    soft = quality_focal_loss_sum(logits, labels, ones, gamma)
    torch.testing.assert_close(soft, 2 * focal_loss_sum(logits, labels, alpha=0.5, gamma=gamma))


@given(st.floats(0.05, 0.95))
def test_the_score_that_costs_least_is_the_quality(quality: float) -> None:
    best = math.log(quality / (1 - quality))
    for loss_sum in (quality_focal_loss_sum, varifocal_loss_sum):
        costs = [
            loss_sum(torch.tensor([[best + step]]), torch.tensor([0]), torch.tensor([quality])).item()
            for step in (-4, -0.3, 0, 0.3, 4)
        ]
        assert costs[0] > costs[1] > costs[2] < costs[3] < costs[4]


@given(st.floats(0, 15.9))
def test_the_distribution_that_costs_least_has_the_target_as_its_mean(target: float) -> None:
    logits = torch.zeros(1, 17, dtype=torch.float64, requires_grad=True)
    distribution_focal_loss(logits, torch.tensor([target], dtype=torch.float64)).backward()
    # The gradient of a cross entropy is the difference of the two distributions.
    wanted = (logits.softmax(1) - logits.grad)[0].detach()
    assert (wanted @ torch.arange(17, dtype=torch.float64)).item() == pytest.approx(target, abs=1e-6)
    assert int((wanted > 1e-9).sum()) <= 2


@pytest.mark.parametrize("loss_sum", [quality_focal_loss_sum, varifocal_loss_sum])
@pytest.mark.parametrize("label", [NEGATIVE, IGNORED])
def test_nothing_positive(loss_sum, label: int) -> None:
    logits = torch.full((3, 2), -50.0, requires_grad=True)
    loss = loss_sum(logits, torch.full((3,), label), torch.zeros(0))
    loss.backward()
    assert loss.item() == pytest.approx(0) and logits.grad.isfinite().all()
