"""Feature pyramid network (Lin et al., 2017) and the levels on top of it.

Shapes: N images, C channels, H W; levels run from fine to coarse.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import InputError
from engine.layers.norm import norm
from engine.modeling.necks.neck import NECKS

FPN_NECKS = ("FPN", "FPN-RETINANET")
"""The names in `NECKS`."""
P3_STRIDE = 8
"""Of the finest level of RetinaNet and ATSS."""


def _conv(in_channels: int, out_channels: int, kernel_size: int, use_gn: bool, use_relu: bool) -> nn.Module:
    """A convolution that keeps the resolution; without norm and ReLU it stands alone, as parameter names expect."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=not use_gn)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    extras = [norm("GN", out_channels)] if use_gn else []
    extras += [nn.ReLU(inplace=True)] if use_relu else []
    return nn.Sequential(conv, *extras) if extras else conv


class LevelsP6P7(nn.Module):
    """P6 by a strided convolution of C5 (`use_c5`) or of P5, P7 by another one of relu(P6) (RetinaNet).

    Args:
        c5_channels: not used unless `use_c5`.
        relu: False computes P7 from P6 itself, as mmdetection does.
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
    """`conv`, which has stride 2. On a map of a single cell (images of up to 64 pixels) the stride has no effect.

    There it runs with stride 1, because oneDNN's bfloat16 gradient of a strided convolution over a single cell is
    uninitialised memory (observed with torch 2.14).
    """
    if x.shape[-2:] != (1, 1):
        return conv(x)
    return F.conv2d(x, conv.weight, conv.bias, padding=conv.padding)


class LevelP6Pool(nn.Module):
    """P6 is every second pixel of P5 (Faster R-CNN)."""

    num_levels = 1

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        return [F.max_pool2d(p5, kernel_size=1, stride=2)]


class FPN(nn.Module):
    """A top-down path over the maps of a body, with further levels on top.

    Args:
        in_channels: channels of each map.
        strides: stride of each map.
        out_channels: channels of every level.
        top: the further levels.
        finest_stride: maps of a smaller stride are left out.
        use_gn, use_relu: group norm and ReLU after each convolution.

    Raises:
        InputError: every map is left out.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        out_channels: int,
        top: LevelsP6P7 | LevelP6Pool,
        finest_stride: int = 1,
        use_gn: bool = False,
        use_relu: bool = False,
    ) -> None:
        super().__init__()
        # Counted from 1 over all maps of the body, as in the names of the reference's parameters.
        self.levels = [i for i, stride in enumerate(strides, 1) if stride >= finest_stride]
        if not self.levels:
            raise InputError(
                f"the pyramid needs a map of stride {finest_stride} or more, but the body's strides are {list(strides)}"
            )
        for i in self.levels:
            self.add_module(f"fpn_inner{i}", _conv(in_channels[i - 1], out_channels, 1, use_gn, use_relu))
            self.add_module(f"fpn_layer{i}", _conv(out_channels, out_channels, 3, use_gn, use_relu))
        self.top_blocks = top
        self.out_channels = out_channels
        above = [strides[-1] * 2**k for k in range(1, top.num_levels + 1)]  # each halves the resolution again
        self.strides = [*(strides[i - 1] for i in self.levels), *above]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The body's maps -> the pyramid, each level (N, out_channels, H_l, W_l)."""
        outputs: list[Tensor] = []
        coarser = None
        for i in reversed(self.levels):
            lateral = getattr(self, f"fpn_inner{i}")(features[i - 1])
            if coarser is not None:
                # To the size of the finer map, not by a factor of 2: sizes may be odd, or equal after a dilated stage.
                lateral = lateral + F.interpolate(coarser, size=lateral.shape[-2:], mode="nearest")
            coarser = lateral
            outputs.insert(0, getattr(self, f"fpn_layer{i}")(lateral))
        return outputs + self.top_blocks(features[-1], outputs[-1])


@NECKS.register("FPN")
def fpn(
    in_channels: Sequence[int],
    strides: Sequence[int],
    out_channels: int = 256,
    use_gn: bool = False,
    use_relu: bool = False,
) -> FPN:
    """Faster R-CNN's pyramid: all maps of the body and a pooled level; P2..P6 on a ResNet."""
    return FPN(in_channels, strides, out_channels, LevelP6Pool(), use_gn=use_gn, use_relu=use_relu)


@NECKS.register("FPN-RETINANET")
def fpn_retinanet(
    in_channels: Sequence[int],
    strides: Sequence[int],
    out_channels: int = 256,
    use_gn: bool = False,
    use_relu: bool = False,
    use_c5: bool = True,
    relu_before_p7: bool = True,
) -> FPN:
    """RetinaNet's pyramid: the maps from stride 8 on and two levels by convolutions; P3..P7 on a ResNet.

    Args:
        use_c5, relu_before_p7: see `LevelsP6P7`.
    """
    top = LevelsP6P7(in_channels[-1], out_channels, use_c5, relu_before_p7)
    return FPN(in_channels, strides, out_channels, top, P3_STRIDE, use_gn, use_relu)
