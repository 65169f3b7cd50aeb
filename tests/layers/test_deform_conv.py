from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from engine.layers.deform_conv import DeformConv2d, gathered, gathering


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(("stride", "dilation", "groups"), [(1, 1, 1), (2, 1, 2), (1, 2, 1)])
def test_starts_as_a_plain_convolution(modulated: bool, stride: int, dilation: int, groups: int) -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(4, 6, 3, stride, dilation, groups, modulated=modulated, bias=True)
    x = torch.randn(2, 4, 9, 11)
    conv = layer.conv
    factor = 0.5 if modulated else 1.0  # sigmoid(0)
    expected = F.conv2d(x, conv.weight * factor, conv.bias, stride, dilation, dilation, groups)
    assert torch.allclose(layer(x), expected, atol=1e-5)


def test_offsets_look_elsewhere() -> None:
    """All taps moved by (dy, dx) = (1, 2) is the input moved by as much."""
    torch.manual_seed(0)
    layer = DeformConv2d(2, 3, modulated=False)
    layer.offset.bias.data = torch.tensor([1.0, 2.0] * 9)
    x = torch.randn(1, 2, 10, 12)
    plain = F.conv2d(x, layer.conv.weight, padding=1)
    assert torch.allclose(layer(x)[..., 1:-3, 1:-4], plain[..., 2:-2, 3:-2], atol=1e-5)


def test_parameters_under_the_names_of_the_reference() -> None:
    layer = DeformConv2d(4, 6, deformable_groups=2, bias=True)
    shapes = {name: tuple(value.shape) for name, value in layer.named_parameters()}
    assert shapes == {
        "offset.weight": (54, 4, 3, 3),
        "offset.bias": (54,),
        "conv.weight": (6, 4, 3, 3),
        "conv.bias": (6,),
    }


def test_golden_in_float64(golden_dir: Path) -> None:
    """Forward and all gradients of the reference's operator, given its offsets and masks."""
    for case in torch.load(golden_dir / "atss" / "deform_conv.pth", weights_only=True):
        layer = DeformConv2d(4, 5, 3, case["stride"], case["dilation"], bias=True).double()
        layer.conv.weight.data, layer.conv.bias.data = case["weight"].clone(), case["bias"].clone()
        x = case["input"].clone().requires_grad_()
        offset, mask = case["offset"].clone().requires_grad_(), case["mask"].clone().requires_grad_()
        layer.offset = _Given(torch.cat([offset, mask.logit()], dim=1))
        output = layer(x)
        assert torch.allclose(output, case["output"], rtol=1e-9, atol=1e-9)
        (output**2).sum().backward()
        for ours, name in ((x, "input"), (offset, "offset"), (mask, "mask"), (layer.conv.weight, "weight")):
            assert torch.allclose(ours.grad, case[f"grad_{name}"], rtol=1e-8, atol=1e-8), name


class _Given(nn.Module):
    """An offset branch that answers with what it was given."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output


@pytest.mark.parametrize("modulated", [False, True])
def test_what_is_not_a_number_stays_so_and_ends_no_process(modulated: bool) -> None:
    layer = DeformConv2d(4, 4, modulated=modulated)
    x = torch.ones(1, 4, 100, 160)
    x[:, :, 50] = torch.nan
    out = layer(x)
    assert out[:, :, 49:52].isnan().all() and out[:, :, :48].isfinite().all() and out[:, :, 53:].isfinite().all()
    layer.offset.bias.data[0] = torch.nan
    assert layer(torch.ones(1, 4, 100, 160)).isnan().all()


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [(3, 1, 1, 1), ((1, 3), (2, 1), (0, 2), (1, 2))])
@pytest.mark.parametrize(("groups", "deformable_groups"), [(1, 1), (2, 1), (1, 2), (4, 4)])
@pytest.mark.parametrize("modulated", [False, True])
def test_gathering_equals_the_operator(
    kernel: Any, stride: Any, padding: Any, dilation: Any, groups: int, deformable_groups: int, modulated: bool
) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 4, 9, 11), nn.Conv2d(4, 8, kernel, groups=groups).weight.data, torch.randn(8)
    shape = F.conv2d(x, weight, None, stride, padding, dilation, groups).shape[2:]
    taps = deformable_groups * weight.shape[2] * weight.shape[3]
    offset = 3 * torch.randn(2, 2 * taps, *shape)
    offset[0, 0, 0, 0], offset[1, 1, 1, 1] = 1e30, -1.0  # far outside; on the pixel before
    mask = torch.rand(2, taps, *shape) if modulated else None
    expected = deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)
    assert torch.allclose(gathered(x, offset, weight, bias, stride, padding, dilation, mask), expected, atol=1e-5)


def test_gathering_is_used_inside_its_context_only(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, x = DeformConv2d(4, 6), torch.randn(1, 4, 7, 7)
    expected = layer(x)
    calls = []
    monkeypatch.setattr("engine.layers.deform_conv.deform_conv2d", lambda *args: calls.append(args) or expected)
    with gathering():
        assert torch.allclose(layer(x), expected, atol=1e-5)
    assert not calls
    layer(x)
    assert calls
