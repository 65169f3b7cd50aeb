from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_align

from engine.modeling.two_stage.roi_pooling import RoIPooler, assign_levels
from engine.structures import CONTINUOUS, INCLUSIVE

STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize(
    "side, level", [(0, 0), (1, 0), (111.9, 0), (112, 1), (223.9, 1), (224, 2), (447, 2), (448, 3), (5000, 3)]
)
def test_levels_by_hand(side: float, level: int) -> None:
    assert assign_levels(torch.tensor([[0.0, 0, side, side]]), STRIDES).tolist() == [level]


def test_slender_boxes_count_by_area() -> None:
    # 20 x 1000 has the area of a square of 141.
    assert assign_levels(torch.tensor([[0.0, 0, 20, 1000]]), STRIDES).tolist() == [1]


@given(st.floats(1, 3000), st.integers(1, 3))
def test_a_level_coarser_pyramid_gives_a_level_less(side: float, shift: int) -> None:
    box = torch.tensor([[0.0, 0, side, side]])
    whole = assign_levels(box, (1, 2, 4, 8, 16, 32, 64, 128))
    part = assign_levels(box, tuple(2**i for i in range(shift, 8)))
    assert part == max(int(whole) - shift, 0)


def pyramid() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 256 // s, 256 // s, generator=generator) for s in STRIDES]


def test_order_of_regions_is_kept() -> None:
    """Each region alone gives what it gives among the others."""
    features = pyramid()
    boxes = [
        torch.tensor([[10.0, 10, 40, 60], [0.0, 0, 250, 250], [30.0, 20, 160, 150]]),
        torch.tensor([[5.0, 9, 240, 200], [50.0, 50, 60, 58]]),
    ]
    pooler = RoIPooler(7, STRIDES, CONTINUOUS)
    pooled = pooler(features, boxes)
    assert pooled.shape == (5, 3, 7, 7)
    rows = [(i, box) for i, image in enumerate(boxes) for box in image]
    for (i, box), row in zip(rows, pooled, strict=True):
        empty = [torch.zeros(0, 4), torch.zeros(0, 4)]
        empty[i] = box[None]
        torch.testing.assert_close(pooler(features, empty)[0], row)


def test_inclusive_regions_end_at_their_last_pixel() -> None:
    features = pyramid()[:1]
    box = torch.tensor([[8.0, 8, 33, 41]])
    inclusive = RoIPooler(7, (4,), INCLUSIVE, 2, aligned=False)(features, [box, box[:0]])
    torch.testing.assert_close(
        inclusive, roi_align(features[0], [torch.tensor([[8.0, 8, 32, 40]]), box[:0]], 7, 0.25, 2, aligned=False)
    )


def test_no_region_at_all_keeps_the_gradient() -> None:
    features = [feature.requires_grad_(True) for feature in pyramid()]
    pooled = RoIPooler(7, STRIDES, CONTINUOUS)(features, [torch.zeros(0, 4), torch.zeros(0, 4)])
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert all(feature.grad is not None and not feature.grad.any() for feature in features)
