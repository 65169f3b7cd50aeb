"""TensorFlow's SAME padding, which weights from there were trained with.

At stride s a map of n cells becomes one of ceil(n / s), and where the padding is odd, the further cell comes after the
map, not before it: (0, 1) for a 3x3 kernel of stride 2 on an even size, where torch's `padding=1` reads one pixel
further left.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(size: int, kernel_size: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Cells of padding before and after a map of `size` cells along one side.

    Example:
        >>> [same_padding(size, 3, 2) for size in (8, 7)], [same_padding(size, 5, 2) for size in (8, 7)]
        ([(0, 1), (1, 1)], [(1, 2), (2, 2)])
    """
    total = max(dilation * (kernel_size - 1) - (size - 1) % stride, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution with SAME padding; parameters as those of `nn.Conv2d`, without `padding`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        x, padding = padded(x, self)
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


def padded(x: Tensor, conv: nn.Conv2d) -> tuple[Tensor, tuple[int, int]]:
    """The map and the symmetric padding (vertical, horizontal) to give to the convolution, together SAME.

    Only uneven padding is added to the map itself, since that copies it.
    """
    sides = [
        same_padding(size, *of_side)
        for size, *of_side in zip(x.shape[-2:], conv.kernel_size, conv.stride, conv.dilation, strict=True)
    ]
    (top, bottom), (left, right) = sides
    if top == bottom and left == right:
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom)), (0, 0)
