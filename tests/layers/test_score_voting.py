from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from engine.layers import score_voting
from engine.layers.nms import class_nms
from engine.layers.score_voting import score_vote


def by_loops(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor, sigma: float) -> Tensor:
    """The formula, candidate by candidate."""
    voted = []
    for k in kept.tolist():
        sums, total = torch.zeros(4, dtype=torch.float64), 0.0
        for i in range(len(boxes)):
            iou = float(box_iou(boxes[k : k + 1].double(), boxes[i : i + 1].double()))
            if labels[i] == labels[k] and iou > 0.01:
                weight = float(scores[i]) * math.exp(-((1 - iou) ** 2) / sigma)
                sums, total = sums + weight * boxes[i].double(), total + weight
        voted.append(sums / total)
    return torch.stack(voted).float()


def test_two_boxes_by_hand() -> None:
    """IoU 0.5: the weights are 0.8 and 0.4 exp(-0.25 / 0.25), so y2 = (10 * 0.8 + 20 * 0.4 / e) / (0.8 + 0.4 / e)."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20]])
    voted = score_vote(boxes, torch.tensor([0.8, 0.4]), torch.tensor([1, 1]), torch.tensor([0, 1]), 0.25)
    expected = (8 + 8 / math.e) / (0.8 + 0.4 / math.e)
    torch.testing.assert_close(voted[0], torch.tensor([0, 0, 10, expected]))
    other = (20 * 0.4 + 10 * 0.8 / math.e) / (0.4 + 0.8 / math.e)
    torch.testing.assert_close(voted[1], torch.tensor([0, 0, 10, other]))


SIDES = st.floats(0, 40, width=32)
BOXES = st.lists(
    st.tuples(SIDES, SIDES, st.floats(1, 40, width=32), st.floats(1, 40, width=32)), min_size=1, max_size=24
)


@st.composite
def candidates(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    rows = torch.tensor(draw(BOXES))
    count = len(rows)
    scores = draw(st.lists(st.floats(0.0625, 1, width=32), min_size=count, max_size=count, unique=True))
    labels = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    return torch.cat([rows[:, :2], rows[:, :2] + rows[:, 2:]], dim=1), torch.tensor(scores), torch.tensor(labels)


@settings(deadline=None, max_examples=40)
@given(candidates(), st.sampled_from([0.005, 0.025, 0.5]), st.randoms(use_true_random=False))
def test_properties(found: tuple[Tensor, Tensor, Tensor], sigma: float, random: object) -> None:
    boxes, scores, labels = found
    kept = class_nms(boxes, scores, labels, 0.6)
    voted = score_vote(boxes, scores, labels, kept, sigma)
    torch.testing.assert_close(voted, by_loops(boxes, scores, labels, kept, sigma), rtol=1e-5, atol=1e-4)
    for box, k in zip(voted, kept, strict=True):
        group = boxes[(labels == labels[k]) & (box_iou(boxes[k : k + 1], boxes)[0] > 0.01)]
        assert (box >= group.amin(0) - 1e-4).all() and (box <= group.amax(0) + 1e-4).all()
        if len(group) == 1:
            assert torch.equal(box, boxes[k])
        alone = labels == labels[k]  # the other classes do not matter
        position = int(alone[:k].sum())
        of_class = score_vote(boxes[alone], scores[alone], labels[alone], torch.tensor([position]), sigma)
        torch.testing.assert_close(of_class[0], box, rtol=1e-6, atol=1e-5)
    order = list(range(len(boxes)))
    random.shuffle(order)
    order = torch.tensor(order)
    positions = order.argsort()[kept]  # where the kept ones went
    shuffled = score_vote(boxes[order], scores[order], labels[order], positions, sigma)
    torch.testing.assert_close(shuffled, voted, rtol=1e-6, atol=1e-5)


def test_boxes_without_extent_and_not_finite_ones() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[5.0, 5, 5, 9], [0, 0, 10, 10], [nan, 0, 10, 10], [0, 0, inf, 10], [0, 0, 10, 12]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6, nan]), torch.zeros(5, dtype=torch.int64)
    voted = score_vote(boxes, scores, labels, torch.tensor([0, 1]), 0.025)
    assert torch.equal(voted, boxes[:2])


def test_nothing() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert score_vote(torch.zeros(0, 4), torch.zeros(0), none, none, 0.025).shape == (0, 4)
    assert score_vote(torch.ones(3, 4), torch.ones(3), torch.zeros(3, dtype=torch.int64), none, 0.025).shape == (0, 4)


@pytest.mark.parametrize("limit", [1, 40, 10_000])
def test_memory_is_bounded_by_pairs(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many boxes are kept, a part of them at a time meets the candidates; the result is the same."""
    torch.manual_seed(0)
    corners = torch.rand(60, 2) * 50
    boxes = torch.cat([corners, corners + 5 + torch.rand(60, 2) * 20], dim=1)
    scores, labels, kept = torch.rand(60), torch.randint(3, (60,)), torch.arange(60)
    expected, seen = score_vote(boxes, scores, labels, kept, 0.025), []
    vote = score_voting._vote
    monkeypatch.setattr(score_voting, "MAX_PAIRS", limit)
    monkeypatch.setattr(score_voting, "_vote", lambda *args: seen.append(len(args[0]) * len(args[2])) or vote(*args))
    torch.testing.assert_close(score_vote(boxes, scores, labels, kept, 0.025), expected)
    assert max(seen) <= max(limit, 60)
