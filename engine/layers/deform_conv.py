"""Deformable convolution v1 (Dai et al., 2017) and v2, modulated (Zhu et al., 2018).

Shapes: N images, C channels, G deformable groups, T = kernel height x kernel width taps, H W.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

_is_gathered: ContextVar[bool] = ContextVar("is_gathered", default=False)


@contextmanager
def gathering() -> Iterator[None]:
    """Within it `deformed` computes by `gathered`: for exports to runtimes that have no deformable convolution."""
    token = _is_gathered.set(True)
    try:
        yield
    finally:
        _is_gathered.reset(token)


def deformed(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """torchvision's `deform_conv2d`, except that cells with an offset that is not a number become NaN.

    torchvision on a CPU reads outside the map's memory for them and ends the process.
    """
    is_lost = offset.isnan().any(1, keepdim=True)  # (N, 1, H', W')
    form = gathered if _is_gathered.get() else deform_conv2d
    result = form(x, offset.nan_to_num(), weight, bias, stride, padding, dilation, mask)
    return result.masked_fill(is_lost, torch.nan)


def gathered(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """What `deform_conv2d` computes, by operators that every runtime has; it takes 4 T times the memory of `x`.

    Args:
        x: (N, C, H, W).
        offset: (N, 2GT, H', W'), finite; dy and dx of each tap, in pixels.
        weight: (O, C / groups, kernel height, kernel width).
        mask: (N, GT, H', W').

    Returns:
        (N, O, H', W').
    """
    taps = weight.shape[2] * weight.shape[3]
    count, channels, height, width = x.shape
    num_groups = offset.shape[1] // (2 * taps)  # G
    shifts = offset.unflatten(1, (num_groups, taps, 2))  # (N, G, T, 2, H', W')
    places = [
        shifts[:, :, :, axis] + _grid(offset, weight, axis, _pair(stride), _pair(padding), _pair(dilation))
        for axis in (0, 1)
    ]  # (N, G, T, H', W') each
    flat = x.reshape(count, num_groups, channels // num_groups, height * width)
    corners = [place.floor() for place in places]
    columns = torch.zeros((), dtype=x.dtype, device=x.device)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        y, x_ = corners[0] + down, corners[1] + right
        share = (1 - (places[0] - y).abs()) * (1 - (places[1] - x_).abs())
        # Beyond the edge the map is 0.
        share = torch.where((y >= 0) & (y < height) & (x_ >= 0) & (x_ < width), share, 0.0)
        share = share if mask is None else share * mask.unflatten(1, (num_groups, taps))
        idx = y.clamp(min=0).clamp(max=height - 1).long() * width + x_.clamp(min=0).clamp(max=width - 1).long()
        idx = idx.flatten(2)[:, :, None].expand(-1, -1, channels // num_groups, -1)  # (N, G, C/G, T H'W')
        columns = columns + flat.gather(3, idx) * share.flatten(2)[:, :, None]
    groups = channels // weight.shape[1]
    columns = columns.reshape(count, groups, weight.shape[1] * taps, -1)  # (N, groups, C/groups T, H'W')
    result = weight.reshape(groups, weight.shape[0] // groups, -1) @ columns  # (N, groups, O/groups, H'W')
    result = result.reshape(count, weight.shape[0], *offset.shape[2:])
    return result if bias is None else result + bias[:, None, None]


def _grid(
    offset: Tensor,
    weight: Tensor,
    axis: int,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> Tensor:
    """Where each tap would look without an offset, along one axis: (T, H', 1) or (T, 1, W'), pixels."""
    cells = torch.arange(offset.shape[2 + axis], device=offset.device, dtype=offset.dtype) * stride[axis]
    steps = torch.arange(weight.shape[2 + axis], device=offset.device, dtype=offset.dtype) * dilation[axis]
    steps = steps.repeat_interleave(weight.shape[3]) if axis == 0 else steps.repeat(weight.shape[2])  # (T,)
    starts = cells - padding[axis]  # (H',) or (W',)
    return steps[:, None, None] + (starts[:, None] if axis == 0 else starts[None])


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class DeformConv2d(nn.Module):
    """A convolution that learns where to sample its input.

    The offset branch outputs 2 G T channels of offsets (dy and dx per tap, in input pixels) and, if `modulated`, G T
    mask logits after them. The branch starts at zero, as in both papers, so the layer begins as a plain convolution
    (v1) or as half of one (v2: sigmoid(0) = 0.5).

    Args:
        groups: groups of the convolution itself.
        deformable_groups: G; the input channels of each have offsets of their own.
        modulated: version 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        modulated: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.dilation = stride, dilation
        self.padding = dilation * (kernel_size // 2)
        self.num_offsets = 2 * deformable_groups * kernel_size**2
        num_masks = deformable_groups * kernel_size**2 if modulated else 0
        self.offset = nn.Conv2d(in_channels, self.num_offsets + num_masks, kernel_size, stride, self.padding, dilation)
        # Only holds weight and bias under the reference's names; its forward is never called.
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, groups=groups, bias=bias)
        self.reset_offsets()

    def reset_offsets(self) -> None:
        """Make it a plain convolution again. Modules that initialise all their convolutions call this afterwards."""
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out_channels, H', W'), computed in the type of the weights even under autocast."""
        # bfloat16 has 8 significant bits: it would round an offset of 100 pixels to half a pixel.
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.conv.weight.dtype)
            offset_mask = self.offset(x)  # (N, 2GT + GT, H', W')
            offset, mask = offset_mask[:, : self.num_offsets], offset_mask[:, self.num_offsets :]
            mask = mask.sigmoid() if mask.shape[1] else None
            conv = self.conv
            return deformed(x, offset, conv.weight, conv.bias, self.stride, self.padding, self.dilation, mask)
