from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from engine.analysis.anchor_analysis import best_iou, kmeans_iou, means_table, reach_table, shape_iou, suggest
from engine.analysis.anchor_boxes import SeenBoxes, count_positives
from engine.modeling.anchors import AnchorGenerator
from engine.structures import CONTINUOUS, INCLUSIVE, PixelConvention

STRIDES = [8, 16]


def test_shape_iou_by_hand() -> None:
    # 10 x 10 in 20 x 10: half; 4 x 10 and 10 x 4 share 16 of 64.
    assert shape_iou(np.array([[10, 10], [4, 10]]), np.array([[20, 10], [10, 4]])).tolist() == [
        [0.5, 0.4],
        [0.2, 0.25],
    ]


boxes_strategy = st.lists(
    st.tuples(st.floats(0, 80), st.floats(0, 50), st.floats(2, 60), st.floats(2, 40)), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(boxes_strategy, st.sampled_from([CONTINUOUS, INCLUSIVE]))
def test_best_iou_is_that_over_all_anchors(rows: list, convention: PixelConvention) -> None:
    generator = AnchorGenerator([[12, 20], [30, 44]], [0.5, 2.0], STRIDES, convention)
    boxes = torch.tensor(rows)
    boxes[:, 2:] += boxes[:, :2]
    height, width = 96, 144
    grid = generator([torch.empty(0, height // s, width // s) for s in STRIDES])
    expected = box_iou(boxes, grid.boxes).amax(1)
    sizes = np.tile([[height, width]], (len(boxes), 1))
    found = best_iou(boxes.double().numpy(), sizes, list(generator.cells.numpy()), STRIDES)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_clusters_are_found_and_the_seed_decides() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[10.0, 40], [40.0, 10], [90.0, 90]])
    shapes = np.concatenate([center + rng.normal(0, 0.5, (50, 2)) for center in truth])
    found = kmeans_iou(shapes, 3, seed=1)
    np.testing.assert_allclose(sorted(found.tolist()), sorted(truth.tolist()), atol=0.3)
    assert np.array_equal(found, kmeans_iou(shapes, 3, seed=1))


def test_fewer_clusters_than_asked_for_where_boxes_are_alike() -> None:
    assert kmeans_iou(np.array([[8.0, 8.0]] * 5), 3).tolist() == [[8.0, 8.0]]


def test_suggested_ratios_and_sizes() -> None:
    shapes = np.array([[20.0, 20], [10.0, 40], [80.0, 80], [40.0, 160]] * 3)  # ratios 1 and 4, sizes 20 and 80
    ratios, sizes = suggest(shapes, 2, 2)
    assert ratios == pytest.approx([1, 4])
    assert sizes == pytest.approx([20, 80])


def test_positives_of_each_box() -> None:
    generator = AnchorGenerator([[16]], [1.0], [8], CONTINUOUS)
    boxes = np.array([[0.0, 0, 16, 16], [32.0, 32, 64, 64]])
    seen = SeenBoxes(boxes, np.array([[64.0, 64]] * 2), np.array([0, 1]), 2)
    assert seen.shapes.tolist() == [[16, 16], [32, 32]]

    def nearest(anchors, gt_boxes: torch.Tensor) -> torch.Tensor:
        matched = torch.full((len(anchors.boxes),), -1)
        matched[:3] = len(gt_boxes) - 1  # the last box of an image has three positive anchors
        return matched

    assert count_positives(seen, generator, nearest).tolist() == [3, 3]


def test_tables() -> None:
    assert "50.0" in reach_table({"mine": np.array([0.4, 0.6])})
    assert "2.50" in means_table(np.array([[20.0, 20], [22.0, 20]]), np.array([2.0, 3.0]))
