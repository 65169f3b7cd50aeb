from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.modeling.anchors import AnchorGenerator, cell_anchors_exact, cell_anchors_rounded
from engine.structures import CONTINUOUS


def test_reference_cell_anchor_is_half_a_pixel_further() -> None:
    # In inclusive pixels (-27.5, -27.5, 35.5, 35.5): one pixel more on the far side as we store it.
    assert cell_anchors_rounded(8, [64], [1.0]).tolist() == [[-27.5, -27.5, 36.5, 36.5]]


def test_exact_cell_anchors_are_centred_on_the_cell() -> None:
    assert cell_anchors_exact(8, [64], [4.0]).tolist() == [[-16.0, -64.0, 16.0, 64.0]]


def test_golden_cell_anchors(golden_dir: Path) -> None:
    cases = json.loads((golden_dir / "atss" / "cell_anchors.json").read_text())
    for key, levels in cases.items():
        ratios, scales_per_octave, octave, sizes, strides = ast.literal_eval(key)
        for stride, size, expected in zip(strides, sizes, levels, strict=True):
            scaled = [size * octave ** (i / scales_per_octave) for i in range(scales_per_octave)]
            ours = cell_anchors_rounded(stride, scaled, ratios) - torch.tensor([0.0, 0.0, 1.0, 1.0])
            torch.testing.assert_close(ours, torch.tensor(expected), rtol=1e-5, atol=1e-3)


def test_grid_runs_row_by_row_and_anchor_by_anchor() -> None:
    generator = AnchorGenerator([[8, 16]], [1.0], [4], CONTINUOUS)
    anchors = generator([torch.zeros(2, 1, 2, 3)])
    assert anchors.grids == [(2, 3)] and anchors.num_per_level == [12]
    centers = (anchors.boxes[:, :2] + anchors.boxes[:, 2:]) / 2
    assert centers[::2].tolist() == [[0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4]]
    assert anchors.boxes[0].tolist() == [-4, -4, 4, 4] and anchors.boxes[1].tolist() == [-8, -8, 8, 8]


def test_anchors_do_not_depend_on_the_calls_before() -> None:
    generator = AnchorGenerator([[8]], [1.0], [4], CONTINUOUS)
    first = generator([torch.zeros(1, 1, 2, 3)])
    assert len(generator([torch.zeros(1, 1, 3, 3)]).boxes) == 9
    assert torch.equal(generator([torch.zeros(5, 7, 2, 3)]).boxes, first.boxes)


def test_levels_and_strides_must_agree() -> None:
    with pytest.raises(ValueError):
        AnchorGenerator([[8], [16]], [1.0], [4], CONTINUOUS)


def test_torchvision_counts_pixels_between_cells_from_the_image() -> None:
    """An image of 160 x 224 has 3 x 4 cells on P6: 53 and 56 pixels apart instead of 64. Sides are whole pixels."""
    generator = AnchorGenerator([[40]], [0.5], [64], convention=replace(CONTINUOUS, anchor_rule="torchvision"))
    anchors = generator([torch.zeros(1, 1, 3, 4)], (160, 224))
    assert anchors.boxes[0].tolist() == [-28, -14, 28, 14]  # 56.57 x 28.28
    assert (anchors.boxes[1] - anchors.boxes[0]).tolist() == [56, 0, 56, 0]
    assert (anchors.boxes[4] - anchors.boxes[0]).tolist() == [0, 53, 0, 53]
    assert anchors.steps == [(53, 56)] and anchors.strides == [64]
    plain = generator([torch.zeros(1, 1, 3, 4)])
    assert (plain.boxes[4] - plain.boxes[0]).tolist() == [0, 64, 0, 64]
