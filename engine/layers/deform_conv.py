"""Deformable convolution v1 (Dai et al., 2017) and v2, modulated (Zhu et al., 2018).

Shapes: N images, C channels, G deformable groups, T = kernel height x kernel width taps, H W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


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
    result = deform_conv2d(x, offset.nan_to_num(), weight, bias, stride, padding, dilation, mask)
    return result.masked_fill(is_lost, torch.nan)


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
