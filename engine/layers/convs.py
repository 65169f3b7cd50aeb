"""Convolutions that keep the resolution, by name (`MODEL.DENSE.TOWER_CONV`, `conv` in `MODEL.NECK.ARGS`).

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

from torch import nn

from engine.layers.depthwise import DepthwiseConv2d
from engine.registry import Registry

CONVS = Registry("CONVS")
"""(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> module of maps (N, C, H, W) that keeps H, W.

`kernel_size` is odd; `bias` is False where a norm follows that has one.
"""


@CONVS.register("plain")
def plain(in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True) -> nn.Conv2d:
    """Every output channel looks at all input channels: k^2 C C' multiplications per cell."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


@CONVS.register("depthwise")
class SeparableConv2d(nn.Sequential):
    """Depthwise-separable convolution (Chollet, 2017): k^2 C + C C' multiplications per cell.

    A convolution of each channel on its own, then a 1x1 convolution of all; nothing between them, as in EfficientDet
    (Tan et al., 2020).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, bias: bool = True) -> None:
        super().__init__(
            DepthwiseConv2d(in_channels, kernel_size, bias=False),
            nn.Conv2d(in_channels, out_channels, 1, bias=bias),
        )
