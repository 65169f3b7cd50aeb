"""Feature pyramid network (Lin et al., 2017) and the levels above it.

Shapes: N images, C channels, H W; levels run from fine to coarse.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from engine.layers.norm import norm


def _conv(in_channels: int, out_channels: int, kernel_size: int, use_gn: bool, use_relu: bool) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=not use_gn)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    extras = [norm("GN", out_channels)] if use_gn else []
    extras += [nn.ReLU(inplace=True)] if use_relu else []
    return nn.Sequential(conv, *extras) if extras else conv


class LevelsP6P7(nn.Module):
    """P6 by a strided convolution of C5 (`use_c5`) or P5, P7 by one of relu(P6) (RetinaNet).

    Args:
        relu: False takes P7 from P6 itself (mmdetection).
    """

    num_levels = 2

    def __init__(self, c5_channels: int, out_channels: int, use_c5: bool, relu: bool = True) -> None:
        super().__init__()
        self.use_c5, self.relu = use_c5, relu
        self.p6 = nn.Conv2d(c5_channels if use_c5 else out_channels, out_channels, 3, 2, 1)
        self.p7 = nn.Conv2d(out_channels, out_channels, 3, 2, 1)
        for conv in (self.p6, self.p7):
            nn.init.kaiming_uniform_(conv.weight, a=1)
            nn.init.zeros_(conv.bias)

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        p6 = _halved(self.p6, c5 if self.use_c5 else p5)
        p7 = _halved(self.p7, F.relu(p6) if self.relu else p6)
        return [p6, p7]


def _halved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv`, of stride 2; over a single cell (pictures of up to 64 pixels) of stride 1, which is the same.

    There oneDNN's bfloat16 gradient of a strided convolution is memory that nobody wrote (seen with torch 2.14).
    """
    if x.shape[-2:] != (1, 1):
        return conv(x)
    return F.conv2d(x, conv.weight, conv.bias, padding=conv.padding)


class LevelP6Pool(nn.Module):
    """P6 as every second pixel of P5 (Faster R-CNN)."""

    num_levels = 1

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        return [F.max_pool2d(p5, kernel_size=1, stride=2)]


class FPN(nn.Module):
    """Top-down pathway over the last maps of a body.

    Args:
        in_channels: channels of C2..C5; 0 leaves a map out (RetinaNet and ATSS have no P2).
        out_channels: channels of every level.
        top: `LevelsP6P7` or `LevelP6Pool`.
        use_gn, use_relu: group norm and ReLU after each convolution.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        top: LevelsP6P7 | LevelP6Pool,
        use_gn: bool = False,
        use_relu: bool = False,
    ) -> None:
        super().__init__()
        self.levels = [i for i, channels in enumerate(in_channels, 1) if channels]
        for i in self.levels:
            self.add_module(f"fpn_inner{i}", _conv(in_channels[i - 1], out_channels, 1, use_gn, use_relu))
            self.add_module(f"fpn_layer{i}", _conv(out_channels, out_channels, 3, use_gn, use_relu))
        self.top_blocks = top
        self.num_levels = len(self.levels) + top.num_levels
        self.out_channels = out_channels

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """C2..C5 -> the pyramid, each (N, out_channels, H_l, W_l)."""
        outputs: list[Tensor] = []
        coarser = None
        for i in reversed(self.levels):
            lateral = getattr(self, f"fpn_inner{i}")(features[i - 1])
            if coarser is not None:
                lateral = lateral + F.interpolate(coarser, size=lateral.shape[-2:], mode="nearest")
            coarser = lateral
            outputs.insert(0, getattr(self, f"fpn_layer{i}")(lateral))
        return outputs + self.top_blocks(features[-1], outputs[-1])


class Backbone(nn.Module):
    """A body and its pyramid."""

    def __init__(self, body: nn.Module, fpn: FPN) -> None:
        super().__init__()
        self.body = body
        self.fpn = fpn

    @property
    def out_channels(self) -> int:
        return self.fpn.out_channels

    @property
    def strides(self) -> list[int]:
        first = self.fpn.levels[0] + 1
        return [2 ** (first + i) for i in range(self.fpn.num_levels)]

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.fpn(self.body(images))
