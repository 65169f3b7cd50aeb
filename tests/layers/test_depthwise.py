"""Depthwise convolutions against torch's, and SAME padding by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.layers.depthwise import DepthwiseConv2d
from engine.layers.same_padding import SameConv2d, same_padding


def results(layer: nn.Module, x: Tensor, in_bfloat16: bool) -> list[Tensor]:
    """Output, gradient of the input, gradients of the parameters, for a fixed gradient of the output."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
        y = layer(x)
    generator = torch.Generator().manual_seed(1)
    y.backward(torch.randn(y.shape, generator=generator).to(y.dtype))
    return [y, x.grad, *(each.grad for each in layer.parameters())]


def random_map(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("same", [False, True])
def test_gradients_in_bfloat16_are_those_of_float32(kernel_size: int, stride: int, same: bool) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv2d(16, kernel_size, stride, same=same)
    for size in [(1, 1), (2, 1), (2, 2), (5, 4), (8, 8), (9, 14)]:
        x = random_map(2, 16, *size)
        expected, got = results(layer, x, False), results(layer, x, True)
        assert got[0].dtype == torch.bfloat16 and all(each.dtype == torch.float32 for each in got[1:])
        assert got[1].shape == x.shape
        for ours, theirs in zip(got, expected, strict=True):
            assert torch.allclose(
                ours.float(), theirs, rtol=0, atol=0.02 * max(1.0, float(theirs.detach().abs().max()))
            ), size


@pytest.mark.parametrize("same", [False, True])
def test_no_gradient_is_uninitialised_memory(same: bool) -> None:
    """oneDNN's of a strided kernel for an output of one cell is, in bfloat16; freed memory full of NaN shows it."""
    layer = DepthwiseConv2d(64, 3, 2, bias=False, same=same)
    for size in [(1, 1), (2, 1), (1, 2), (2, 2)]:
        x = random_map(1, 64, *size)
        expected = results(layer, x, False)[2]
        for _ in range(20):
            used = [torch.full((count,), torch.nan).bfloat16() for count in (64, 128, 576, 1152, 3200)]
            del used
            assert torch.allclose(results(layer, x, True)[2], expected, atol=0.05), size


def test_outside_of_bfloat16_it_is_torchs_bit_for_bit() -> None:
    torch.manual_seed(0)
    layer, plain = DepthwiseConv2d(8, 5, 2), nn.Conv2d(8, 8, 5, 2, 2, groups=8)
    plain.load_state_dict(layer.state_dict())
    x = random_map(2, 8, 9, 10)
    for ours, theirs in zip(results(layer, x, False), results(plain, x, False), strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain(x))


def test_a_fixed_layer_and_a_map_in_torchs_first_layout() -> None:
    layer = DepthwiseConv2d(8, 5, 2, bias=False).requires_grad_(False)
    x = random_map(2, 8, 6, 6).contiguous()
    expected = results(layer, x, False)[1]
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x.requires_grad_())
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16())
    assert layer.weight.grad is None and torch.allclose(x.grad, expected, atol=0.05)


@given(st.integers(1, 40), st.sampled_from([1, 2, 3, 5, 7]), st.integers(1, 4), st.integers(1, 3))
def test_same_padding_gives_every_stride_its_cell(size: int, kernel_size: int, stride: int, dilation: int) -> None:
    before, after = same_padding(size, kernel_size, stride, dilation)
    assert 0 <= before <= after <= before + 1
    reach = dilation * (kernel_size - 1) + 1
    assert (size + before + after - reach) // stride + 1 == -(-size // stride)
    if before + after:  # no cell of padding too many
        assert (-(-size // stride) - 1) * stride + reach == size + before + after


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding"),
    [
        (224, 3, 2, (0, 1)),
        (7, 3, 2, (1, 1)),
        (56, 5, 2, (1, 2)),
        (15, 5, 2, (2, 2)),
        (9, 5, 1, (2, 2)),
        (1, 3, 2, (1, 1)),
    ],
)
def test_same_padding_by_hand(size: int, kernel_size: int, stride: int, padding: tuple[int, int]) -> None:
    assert same_padding(size, kernel_size, stride) == padding


def test_the_further_cell_comes_after_the_map() -> None:
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    # Windows at rows and columns 0..2 and 2..4, of which 4 is padding.
    assert conv(x).flatten().tolist() == [45.0, 39.0, 66.0, 50.0]
    assert torch.equal(conv(x), F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, stride=2))


def test_a_compiled_layer_gives_the_same() -> None:
    layer, x = DepthwiseConv2d(8, 5, 2), random_map(2, 8, 9, 10)
    expected = results(layer, x, True)
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for ours, theirs in zip(results(compiled, x, True), expected, strict=True):
        assert torch.allclose(ours.float(), theirs.float(), atol=0.05)
