from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.errors import InputError
from engine.modeling.necks import NECKS
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


@pytest.mark.parametrize(
    ("name", "body_strides", "strides"),
    [
        ("FPN", (4, 8, 16, 32), (4, 8, 16, 32, 64)),
        ("FPN-RETINANET", (4, 8, 16, 32), (8, 16, 32, 64, 128)),
        ("FPN", (4, 8, 16, 16), (4, 8, 16, 16, 32)),  # a dilated last stage
        ("FPN-RETINANET", (4, 8, 16, 16), (8, 16, 16, 32, 64)),
        ("FPN", (16,), (16, 32)),
        ("FPN-RETINANET", (8, 16, 32), (8, 16, 32, 64, 128)),
        ("FPN-RETINANET", (2, 4, 8, 16, 32), (8, 16, 32, 64, 128)),
        ("FPN-RETINANET", (32,), (32, 64, 128)),
    ],
)
def test_levels_follow_from_the_maps_of_the_body(
    name: str, body_strides: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    channels = [8 * i for i in range(1, len(body_strides) + 1)]
    neck = NECKS.get(name)(in_channels=channels, strides=body_strides, out_channels=16)
    features = [torch.randn(1, c, 128 // s, 256 // s) for c, s in zip(channels, body_strides, strict=True)]
    levels = neck(features)
    assert tuple(neck.strides) == strides and neck.out_channels == 16
    assert [tuple(level.shape) for level in levels] == [(1, 16, 128 // s, 256 // s) for s in strides]


def test_parameters_are_numbered_by_the_maps_of_the_body() -> None:
    """As in checkpoints of the reference, whose RetinaNet leaves C2 out."""
    neck = NECKS.get("FPN-RETINANET")(in_channels=(8, 16, 32, 64), strides=(4, 8, 16, 32), out_channels=8)
    names = {name.split(".")[0] for name in neck.state_dict()}
    assert names == {f"fpn_{part}{i}" for part in ("inner", "layer") for i in (2, 3, 4)} | {"top_blocks"}


def test_a_body_without_coarse_maps() -> None:
    with pytest.raises(InputError, match=r"needs a map of stride 8 or more, but the body's strides are \[4\]"):
        NECKS.get("FPN-RETINANET")(in_channels=(8,), strides=(4,))
