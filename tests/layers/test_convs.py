from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.layers.convs import CONVS, SeparableConv2d


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("name", CONVS.names())
def test_resolution_is_kept(name: str, kernel_size: int) -> None:
    for bias in (True, False):
        conv = CONVS.get(name)(4, 6, kernel_size, bias=bias)
        assert conv(torch.zeros(2, 4, 5, 9)).shape == (2, 6, 5, 9)


def test_a_separable_convolution_is_one_whose_kernels_differ_by_factors_only() -> None:
    torch.manual_seed(0)
    conv = SeparableConv2d(3, 4, 5)
    depthwise, pointwise = conv
    weight = pointwise.weight * depthwise.weight[:, 0]  # (4, 3, 1, 1) * (3, 5, 5) -> (4, 3, 5, 5)
    x = torch.randn(2, 3, 8, 11)
    torch.testing.assert_close(conv(x), F.conv2d(x, weight, pointwise.bias, padding=2), rtol=1e-4, atol=1e-5)


def test_parameters() -> None:
    count = sum(p.numel() for p in SeparableConv2d(128, 128, 5, bias=False).parameters())
    assert count == 25 * 128 + 128 * 128  # plain: 25 * 128 * 128
