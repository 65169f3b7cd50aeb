from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from engine.layers import nms
from engine.layers.nms import class_nms, keep_best

LAST_PIXEL = torch.tensor([0.0, 0.0, 1.0, 1.0])


def _random(seed: int, count: int, num_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * 30], dim=1)
    return boxes, torch.rand(count, generator=generator), torch.randint(num_classes, (count,), generator=generator)


def test_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [20, 0, 30, 10]])
    scores, labels = torch.tensor([0.5, 0.9, 0.8, 0.7]), torch.tensor([0, 0, 1, 0])
    assert class_nms(boxes, scores, labels, 0.6).tolist() == [1, 2, 3]
    assert class_nms(boxes, scores, labels, 0.9).tolist() == [1, 2, 3, 0]  # IoU is 0.9: not larger
    assert class_nms(boxes, scores, labels, 0.0).tolist() == [1, 2, 3, 0]


def test_no_boxes() -> None:
    assert class_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5).shape == (0,)


@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), thresh=st.sampled_from([0.1, 0.3, 0.6]))
def test_what_is_kept(seed: int, count: int, thresh: float) -> None:
    """Kept boxes of a class do not overlap by more; each dropped one overlaps with a better kept one of its class."""
    boxes, scores, labels = _random(seed, count)
    kept = class_nms(boxes, scores, labels, thresh)
    assert (scores[kept].diff() <= 0).all()
    overlaps = (box_iou(boxes.double(), boxes.double()) > thresh) & (labels[:, None] == labels)
    assert not overlaps[kept][:, kept].fill_diagonal_(False).any()
    better = scores[:, None] > scores
    suppressed = (overlaps & better)[kept].any(0)
    is_kept = torch.zeros(count, dtype=torch.bool)
    is_kept[kept] = True
    assert torch.equal(suppressed, ~is_kept)


def test_far_classes_do_not_blur_the_overlap() -> None:
    """With an offset in float32, boxes of class 500 at 10,000 pixels would lose their fractions."""
    boxes = torch.tensor([[9000.0, 9000, 9001, 9001], [9000.4, 9000, 9001.4, 9001]])  # IoU 0.6 / 1.4
    labels = torch.tensor([500, 500])
    assert class_nms(boxes, torch.tensor([0.9, 0.8]), labels, 0.42).tolist() == [0]
    assert class_nms(boxes, torch.tensor([0.9, 0.8]), labels, 0.44).tolist() == [0, 1]


def test_many_boxes_give_the_same_as_few(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = (*_random(1, 300, num_classes=7), 0.4)
    expected = class_nms(*problem)
    monkeypatch.setattr(nms, "MANY_BOXES_CPU", 10)
    assert torch.equal(class_nms(*problem), expected)


def test_golden(golden_dir: Path) -> None:
    for case in torch.load(golden_dir / "atss" / "nms.pth", weights_only=True):
        kept = class_nms(case["boxes"] + LAST_PIXEL, case["scores"], case["labels"], case["thresh"])
        assert sorted(kept.tolist()) == sorted(case["ml_nms_keep"].tolist()), len(case["boxes"])


@pytest.mark.parametrize(
    ("limit", "kept"),
    [(0, [0, 1, 2, 3]), (1, [0]), (2, [0, 1, 2]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])],
)
def test_ties_with_the_last_one_stay(limit: int, kept: list[int]) -> None:
    scores = torch.tensor([0.9, 0.5, 0.5, 0.1])
    assert keep_best(scores, limit).nonzero()[:, 0].tolist() == kept
