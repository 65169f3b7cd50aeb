from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.modeling.necks.fpn import LevelsP6P7


def _gradients(levels: LevelsP6P7, p5: Tensor, dtype: torch.dtype) -> list[Tensor]:
    levels.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        outputs = levels(p5, p5)
    sum(output.float().square().sum() for output in outputs).backward()
    return [parameter.grad.clone() for parameter in levels.parameters()]


@pytest.mark.parametrize("side", [1, 2, 3])
def test_gradients_in_bfloat16_are_those_in_float32(side: int) -> None:
    """Down to a single cell, over which a stride has no effect."""
    torch.manual_seed(0)
    levels, p5 = LevelsP6P7(0, 64, use_c5=False), torch.randn(2, 64, side, side)
    expected = _gradients(levels, p5, torch.float32)
    for _ in range(5):  # memory that nobody wrote differs from time to time
        for ours, theirs in zip(_gradients(levels, p5, torch.bfloat16), expected, strict=True):
            assert (ours - theirs).abs().max() <= 0.03 * theirs.abs().max()


def test_levels_of_one_cell_are_strided_convolutions() -> None:
    torch.manual_seed(0)
    levels, p5 = LevelsP6P7(0, 8, use_c5=False, relu=False), torch.randn(2, 8, 1, 1)
    p6, p7 = levels(p5, p5)
    assert p6.shape == p7.shape == (2, 8, 1, 1)
    assert torch.allclose(p6, levels.p6(p5), atol=1e-6) and torch.allclose(p7, levels.p7(p6), atol=1e-6)
