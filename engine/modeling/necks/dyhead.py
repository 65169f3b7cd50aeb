"""Dynamic head (Dai et al., 2021): blocks of attention over space, levels and channels after a pyramid.

Shapes: N images, L levels, C channels, H W of a level, T = 9 taps of a 3x3 convolution; levels run from fine to coarse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import InputError, shown
from engine.layers.deform_conv import deformed
from engine.layers.norm import GroupNorm
from engine.modeling.arguments import MOST_LAYERS, check_counts
from engine.modeling.necks.neck import NECKS, Neck
from engine.registry import call_with, lookup

NUM_TAPS = 9
INIT_STD = 0.01
"""Of the weights of the attentions: the first one of levels is about 1/2, and that of channels about a ReLU."""


class SampledConv(nn.Module):
    """A modulated deformable 3x3 convolution whose offsets and masks come from outside, and a group norm."""

    def __init__(self, channels: int, norm_groups: int) -> None:
        super().__init__()
        # Only holds the weight; its forward is never called.
        self.conv = nn.Conv2d(channels, channels, 3, bias=False)
        self.norm = GroupNorm(channels, norm_groups)
        nn.init.kaiming_uniform_(self.conv.weight, a=1)

    def forward(self, x: Tensor, offsets: Tensor, masks: Tensor, stride: int = 1) -> Tensor:
        """(N, C, H, W), offsets (N, 2T, H', W') in cells of `x`, masks (N, T, H', W') -> (N, C, H', W')."""
        weight = self.conv.weight
        return self.norm(deformed(x, offsets, weight, None, (stride, stride), (1, 1), (1, 1), masks))


class DynamicReLU(nn.Module):
    """DyReLU (Chen et al., 2020): the larger of two lines per channel, whose coefficients depend on the whole map.

    With coefficients of zero it is a ReLU.

    Args:
        reduction: channels per hidden unit.
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, 4 * channels, 1)

    def coefficients(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 4C, 1, 1): slopes and intercepts a1, b1, a2, b2, each in [-0.5, 0.5]."""
        mean = x.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
        return F.hardsigmoid(self.fc2(F.relu(self.fc1(mean)))) - 0.5

    def forward(self, x: Tensor) -> Tensor:
        slope1, intercept1, slope2, intercept2 = self.coefficients(x).chunk(4, dim=1)  # (N, C, 1, 1) each
        return torch.maximum(x * (2 * slope1 + 1) + intercept1, x * (2 * slope2) + intercept2)


class DynamicBlock(nn.Module):
    """One block: attention over space (eq. 4), over levels (eq. 3) and over channels (eq. 5), in this order.

    Each level is the mean of what deformable convolutions make of it, of the finer and of the coarser level, each
    weighted by the attention over levels. The level itself says where they look.

    Args:
        channels: C.
        strides: of the levels, input pixels per cell.
        norm_groups: of the group norms.
        zero_offsets: the offsets start at zero, as do the logits of the masks.

    Raises:
        ValueError: `norm_groups` does not divide `channels`.
    """

    def __init__(self, channels: int, strides: Sequence[int], norm_groups: int = 16, zero_offsets: bool = True) -> None:
        super().__init__()
        self.factors = [max(coarse // fine, 1) for fine, coarse in zip(strides, strides[1:], strict=False)]
        self.offset = nn.Conv2d(channels, 3 * NUM_TAPS, 3, padding=1)
        self.conv_mid = SampledConv(channels, norm_groups)
        self.conv_low = SampledConv(channels, norm_groups)
        self.conv_high = SampledConv(channels, norm_groups)
        self.scale_attention = nn.Conv2d(channels, 1, 1)
        self.task_attention = DynamicReLU(channels)
        for conv in (self.offset, self.scale_attention, self.task_attention.fc1, self.task_attention.fc2):
            nn.init.normal_(conv.weight, std=INIT_STD)
            nn.init.zeros_(conv.bias)
        if zero_offsets:
            nn.init.zeros_(self.offset.weight)

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """L levels (N, C, H_l, W_l) -> as many of the same shapes, in the type of the weights even under autocast."""
        # bfloat16 has 8 significant bits: it would round an offset of 100 cells to half a cell. And on a CPU
        # torchvision has no deformable convolution of it.
        with torch.autocast(levels[0].device.type, enabled=False):
            levels = [level.to(self.offset.weight.dtype) for level in levels]
            return [self.task_attention(self.spatial(levels, i)) for i in range(len(levels))]

    def spatial(self, levels: list[Tensor], i: int) -> Tensor:
        """Level `i` before the attention over channels, (N, C, H_i, W_i)."""
        level = levels[i]
        offsets, masks = self.sampling(level)
        seen = [self.conv_mid(level, offsets, masks)]
        if i > 0:
            seen.append(self.from_finer(levels[i - 1], level, offsets, masks, self.factors[i - 1]))
        if i < len(levels) - 1:
            seen.append(self.from_coarser(levels[i + 1], level, offsets, masks))
        return sum(x * self.level_weight(x) for x in seen) / len(seen)

    def sampling(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets (N, 2T, H, W), dy and dx per tap, and masks (N, T, H, W) in [0, 1]."""
        predicted = self.offset(level)  # (N, 3T, H, W)
        return predicted[:, : 2 * NUM_TAPS], predicted[:, 2 * NUM_TAPS :].sigmoid()

    def level_weight(self, x: Tensor) -> Tensor:
        """Attention over levels: (N, C, H, W) -> (N, 1, 1, 1) in [0.5, 1]."""
        return F.hardsigmoid(F.relu(self.scale_attention(x.mean(dim=(2, 3), keepdim=True))))

    def from_finer(self, finer: Tensor, level: Tensor, offsets: Tensor, masks: Tensor, factor: int) -> Tensor:
        """What a strided convolution makes of the finer level, in the size of `level`."""
        height, width = level.shape[-2:]
        # The convolution rounds sizes up, but a body may round down. Negative numbers cut; zeros beyond an odd size
        # are what the convolution sees there anyway.
        finer = F.pad(finer, (0, factor * width - finer.shape[-1], 0, factor * height - finer.shape[-2]))
        return self.conv_low(finer, offsets, masks, factor)

    def from_coarser(self, coarser: Tensor, level: Tensor, offsets: Tensor, masks: Tensor) -> Tensor:
        """What a convolution makes of the coarser level, enlarged to the size of `level`."""
        seen = self.conv_high(coarser, *(first_values(each, coarser.shape[-2:]) for each in (offsets, masks)))
        return F.interpolate(seen, size=level.shape[-2:], mode="bilinear", align_corners=True)


def first_values(x: Tensor, size: Sequence[int]) -> Tensor:
    """(N, C, H, W) -> (N, C, *size): of each image, the values that come first in memory, whatever their place.

    The published implementation reads the offsets of a level for the smaller, coarser one like this. A resized map
    would make more sense, but its weights would then give other boxes.
    """
    num_images, channels = x.shape[:2]
    height, width = size
    count = channels * height * width
    return x.reshape(num_images, -1)[:, :count].reshape(num_images, channels, height, width)


class DyHead(nn.Module):
    """A pyramid and `DynamicBlock`s over its levels, one after the other.

    Args:
        pyramid: a neck, see `neck.Neck`.
        num_blocks: 6 in the paper.
        norm_groups, zero_offsets: see `DynamicBlock`.
    """

    def __init__(self, pyramid: Neck, num_blocks: int = 6, norm_groups: int = 16, zero_offsets: bool = True) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.out_channels, self.strides = pyramid.out_channels, tuple(pyramid.strides)
        self.blocks = nn.Sequential(
            *(DynamicBlock(self.out_channels, self.strides, norm_groups, zero_offsets) for _ in range(num_blocks))
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The body's maps -> the levels of the pyramid after all blocks."""
        return self.blocks(self.pyramid(features))


@NECKS.register("DyHead")
def dyhead(
    in_channels: Sequence[int],
    strides: Sequence[int],
    out_channels: int = 256,
    use_gn: bool = False,
    use_relu: bool = False,
    use_c5: bool = True,
    relu_before_p7: bool = True,
    pyramid: str = "FPN-RETINANET",
    pyramid_args: Mapping[str, Any] = MappingProxyType({}),
    num_blocks: int = 6,
    norm_groups: int = 16,
    zero_offsets: bool = True,
) -> DyHead:
    """Dynamic blocks over the levels of another neck.

    Args:
        out_channels, use_gn, use_relu, use_c5, relu_before_p7: of the neck below, if it takes them.
        pyramid: the neck below, a name in `NECKS`.
        pyramid_args: its further arguments.
        num_blocks, norm_groups, zero_offsets: see `DyHead`.

    Raises:
        InputError: the neck below cannot be built, or `norm_groups` does not divide its channels.
        ValueError: a number is out of its range, or `pyramid_args` is no mapping.
    """
    check_counts(at_least=1, at_most=MOST_LAYERS, num_blocks=num_blocks)
    if not isinstance(pyramid_args, Mapping):
        raise ValueError(f"pyramid_args must map names of arguments to values, got {shown(pyramid_args)}")
    part = lookup(NECKS, pyramid, "MODEL.NECK.ARGS.pyramid")
    offers = {
        "out_channels": out_channels,
        "use_gn": use_gn,
        "use_relu": use_relu,
        "use_c5": use_c5,
        "relu_before_p7": relu_before_p7,
    }
    given = {"in_channels": in_channels, "strides": strides}
    below = call_with(part, pyramid, pyramid_args, "MODEL.NECK.ARGS.pyramid_args", given, offers)
    if norm_groups < 1 or below.out_channels % norm_groups:
        raise InputError(
            f"DyHead has group norms of {norm_groups} groups, but the levels have {below.out_channels} channels: set "
            f"MODEL.RESNETS.BACKBONE_OUT_CHANNELS to a multiple of {max(norm_groups, 1)}, or "
            "MODEL.NECK.ARGS.norm_groups to a divisor of the channels"
        )
    return DyHead(below, num_blocks, norm_groups, zero_offsets)
