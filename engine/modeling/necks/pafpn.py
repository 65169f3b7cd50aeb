"""Path aggregation network (Liu et al., 2018): a bottom-up path after the top-down one of an FPN.

Shapes: N images, C channels, H W; levels run from fine to coarse.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor

from engine.errors import InputError
from engine.modeling.arguments import MOST_LEVELS, check_channels, check_counts
from engine.modeling.necks.fpn import (
    FPN,
    P3_STRIDE,
    LevelP6Pool,
    LevelsP6P7,
    NormLayer,
    levels_from,
    norm_layer_of,
    pyramid_conv,
    strided,
)
from engine.modeling.necks.neck import NECKS
from engine.spelling import did_you_mean

EXTRA_LEVELS = ("pool", "output", "lateral", "input")
"""What the levels above the last map of the body are made from."""


class PAFPN(FPN):
    """An FPN whose levels are then added up from fine to coarse, each halved by a strided convolution.

    Every level but the finest is convolved once more after the sum.

    Args:
        in_channels, strides, out_channels, top, finest_stride, norm_layer, use_relu, norm_on_lateral: see `FPN`.
        top_of_lateral: `top` starts from the coarsest sum of the top-down path, not from the coarsest output.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        strides: Sequence[int],
        out_channels: int,
        top: LevelsP6P7 | LevelP6Pool,
        finest_stride: int = 1,
        norm_layer: NormLayer | None = None,
        use_relu: bool = False,
        norm_on_lateral: bool = True,
        top_of_lateral: bool = False,
    ) -> None:
        super().__init__(in_channels, strides, out_channels, top, finest_stride, norm_layer, use_relu, norm_on_lateral)
        self.top_of_lateral = top_of_lateral
        for finer, i in pairwise(self.levels):
            factor = max(strides[i - 1] // strides[finer - 1], 1)  # 1 after a dilated stage
            down = pyramid_conv(out_channels, out_channels, 3, norm_layer, use_relu, stride=factor)
            self.add_module(f"pafpn_down{i}", down)
            self.add_module(f"pafpn_layer{i}", pyramid_conv(out_channels, out_channels, 3, norm_layer, use_relu))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The body's maps -> the pyramid, each level (N, out_channels, H_l, W_l)."""
        laterals = self.top_down(features)
        finest, *coarser = self.smooth(laterals)
        outputs, total = [finest], finest
        for i, level in zip(self.levels[1:], coarser, strict=True):
            down = strided(getattr(self, f"pafpn_down{i}"), total)
            if down.shape[-2:] != level.shape[-2:]:  # a body that rounds sizes down
                down = F.interpolate(down, size=level.shape[-2:], mode="nearest")
            total = level + down
            outputs.append(getattr(self, f"pafpn_layer{i}")(total))
        return outputs + self.top_blocks(features[-1], laterals[-1] if self.top_of_lateral else outputs[-1])


@NECKS.register("PAFPN")
def pafpn(
    in_channels: Sequence[int],
    strides: Sequence[int],
    out_channels: int = 256,
    use_gn: bool = False,
    use_relu: bool = False,
    use_c5: bool = True,
    relu_before_p7: bool = True,
    num_levels: int = 5,
    finest_stride: int = P3_STRIDE,
    extra_levels: str = "",
    norm_name: str = "",
    norm_groups: int = 32,
    norm_on_lateral: bool = True,
) -> PAFPN:
    """The maps from `finest_stride` on and further levels above them; by default P3..P7 on a ResNet.

    Args:
        use_c5, relu_before_p7: see `LevelsP6P7`.
        num_levels: in all.
        extra_levels: those above the maps of the body are every second pixel of the level below ("pool"), or come from
            strided convolutions that start at the coarsest level ("output"), at its sum before the last convolutions
            ("lateral") or at the body's coarsest map ("input"). "" is "input" with `use_c5`, else "output".
        norm_name, norm_groups: norm after each convolution, see `norm_layer_of`.
        norm_on_lateral: False leaves the norm out after the lateral convolutions.

    Raises:
        InputError: `num_levels` or `extra_levels` do not fit.
        ValueError: a number is out of its range.
    """
    check_channels(out_channels=out_channels)
    check_counts(at_least=1, at_most=MOST_LEVELS, num_levels=num_levels)
    check_counts(at_least=1, finest_stride=finest_stride)
    source = extra_levels or ("input" if use_c5 else "output")
    if source not in EXTRA_LEVELS:
        hint = did_you_mean(source, EXTRA_LEVELS) or f"; it may be {', '.join(EXTRA_LEVELS)}"
        raise InputError(f"PAFPN: extra_levels is {source!r}, but there is no such kind of level{hint}")
    num_maps = len(levels_from(strides, finest_stride))
    if num_levels < num_maps:
        raise InputError(
            f"PAFPN: num_levels is {num_levels}, but the body has {num_maps} maps of stride {finest_stride} or more: "
            f"write {num_maps} or more, or raise finest_stride"
        )
    norm_layer = norm_layer_of(norm_name, use_gn, norm_groups)
    num_extra = num_levels - num_maps
    top: LevelsP6P7 | LevelP6Pool = LevelP6Pool(num_extra)
    if source != "pool":
        top = LevelsP6P7(
            in_channels[-1], out_channels, source == "input", relu_before_p7, num_extra, norm_layer, use_relu
        )
    return PAFPN(
        in_channels,
        strides,
        out_channels,
        top,
        finest_stride,
        norm_layer,
        use_relu,
        norm_on_lateral,
        top_of_lateral=source == "lateral",
    )
