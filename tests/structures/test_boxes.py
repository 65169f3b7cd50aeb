from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.structures import CONTINUOUS, INCLUSIVE, PixelConvention
from engine.structures import boxes as box_ops

CONVENTIONS = [INCLUSIVE, CONTINUOUS]
SIZES = st.integers(1, 500)


@st.composite
def boxes_inside(draw: st.DrawFn) -> tuple[torch.Tensor, tuple[int, int]]:
    """Boxes of at least one pixel inside an image, and the (height, width) of the image."""
    height, width = draw(SIZES), draw(SIZES)
    rows = []
    for _ in range(draw(st.integers(0, 4))):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        rows.append([x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))])
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), (height, width)


@pytest.mark.parametrize(
    ("box", "convention", "clipped"),
    [
        ([-3, -2, 5, 4], CONTINUOUS, [0, 0, 5, 4]),
        ([8, 3, 30, 40], CONTINUOUS, [8, 3, 20, 10]),
        ([25, 12, 30, 40], CONTINUOUS, [20, 10, 20, 10]),  # outside: empty
        ([25, 12, 30, 40], INCLUSIVE, [19, 9, 20, 10]),  # outside: the reference keeps the last pixel
        ([-9, -9, -5, -5], INCLUSIVE, [0, 0, 1, 1]),
    ],
)
def test_clip(box: list[float], convention: PixelConvention, clipped: list[float]) -> None:
    assert convention.clip(torch.tensor([box], dtype=torch.float32), (10, 20)).tolist() == [clipped]


def test_scale_keeps_the_last_pixel_in_the_inclusive_convention() -> None:
    """The reference scales the pixels (0, 0) .. (3, 3) by 2 to (0, 0) .. (6, 6), which we store as x2 = 7."""
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert INCLUSIVE.scale(boxes, (2, 2)).tolist() == [[0, 0, 7, 7]]
    assert CONTINUOUS.scale(boxes, (2, 2)).tolist() == [[0, 0, 8, 8]]


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(problem=boxes_inside(), ratio=st.floats(0.25, 4))
def test_scaling_back_undoes_scaling(convention: PixelConvention, problem: tuple, ratio: float) -> None:
    boxes, _ = problem
    there = convention.scale(boxes, (ratio, 1.5))
    assert torch.allclose(convention.scale(there, (1 / ratio, 1 / 1.5)), boxes, atol=1e-3)


@given(problem=boxes_inside())
def test_flips_are_their_own_inverse_and_stay_inside(problem: tuple) -> None:
    boxes, (height, width) = problem
    for flip, side in ((box_ops.flip_horizontal, width), (box_ops.flip_vertical, height)):
        flipped = flip(boxes, side)
        assert torch.equal(flip(flipped, side), boxes)
        assert torch.equal(box_ops.area(flipped), box_ops.area(boxes))
        assert torch.equal(CONTINUOUS.clip(flipped, (height, width)), flipped)


@given(problem=boxes_inside())
def test_xywh_round_trip(problem: tuple) -> None:
    boxes, _ = problem
    boxes_xywh = box_ops.to_xywh(boxes)
    assert torch.equal(box_ops.from_xywh(boxes_xywh), boxes)
    assert torch.equal(boxes_xywh[:, 2] * boxes_xywh[:, 3], box_ops.area(boxes))


@pytest.mark.parametrize("convention", CONVENTIONS)
@given(problem=boxes_inside())
def test_clip_changes_nothing_inside_and_no_box_twice(convention: PixelConvention, problem: tuple) -> None:
    boxes, size = problem
    assert torch.equal(convention.clip(boxes, size), boxes)
    once = convention.clip(boxes * 3 - 50, size)
    assert torch.equal(convention.clip(once, size), once)
    assert (once[:, 2:] - once[:, :2] >= convention.extent).all()


def test_no_boxes() -> None:
    none = torch.zeros(0, 4)
    assert box_ops.area(none).shape == (0,) and box_ops.centers(none).shape == (0, 2)
    for result in (CONTINUOUS.clip(none, (3, 4)), CONTINUOUS.scale(none, (2, 2)), box_ops.flip_vertical(none, 5)):
        assert result.shape == (0, 4)
