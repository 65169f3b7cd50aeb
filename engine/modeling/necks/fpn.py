"""Feature pyramid network (Lin et al., 2017) and the levels on top of it.

Shapes: N images, C channels, H W; levels run from fine to coarse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import InputError
from engine.layers.convs import CONVS
from engine.layers.norm import GroupNorm, norm
from engine.modeling.arguments import MOST_LEVELS, check_channels, check_counts
from engine.modeling.necks.neck import NECKS
from engine.registry import lookup

P3_STRIDE = 8
"""Of the finest level of RetinaNet and ATSS."""
NormLayer = Callable[[int], nn.Module]
"""(channels) -> a norm of maps of that many channels."""


def pyramid_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm_layer: NormLayer | None = None,
    use_relu: bool = False,
    stride: int = 1,
) -> nn.Module:
    """A plain convolution with the weights of `prepared`, then norm and ReLU; without these two it stands alone."""
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=norm_layer is None)
    return prepared(conv, norm_layer, use_relu)


def prepared(conv: nn.Module, norm_layer: NormLayer | None, use_relu: bool) -> nn.Module:
    """`conv` with its first weights, and norm and ReLU after it; alone without these, as parameter names expect."""
    layers = [layer for layer in conv.modules() if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        nn.init.kaiming_uniform_(layer.weight, a=1)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    extras = [norm_layer(layers[-1].out_channels)] if norm_layer else []
    extras += [nn.ReLU(inplace=True)] if use_relu else []
    return nn.Sequential(conv, *extras) if extras else conv


def strided(block: nn.Module, x: Tensor) -> Tensor:
    """`block`, a `pyramid_conv` with a stride. On a map of a single cell (a small image) the stride has no effect.

    There it runs with stride 1 where there is a gradient, because oneDNN's bfloat16 gradient of a strided convolution
    over a single cell is uninitialised memory (observed with torch 2.14).
    """
    if not torch.is_grad_enabled() or x.shape[-2:] != (1, 1):
        return block(x)
    conv, *rest = block if isinstance(block, nn.Sequential) else [block]
    x = F.conv2d(x, conv.weight, conv.bias, padding=conv.padding)
    for layer in rest:
        x = layer(x)
    return x


class LevelsP6P7(nn.Module):
    """P6 by a strided convolution of C5 (`use_c5`) or of P5, P7 by another one of relu(P6) (RetinaNet), and so on.

    Args:
        c5_channels: not used unless `use_c5`.
        relu: False computes P7 from P6 itself, as mmdetection does.
        num_levels: 2 for P6 and P7.
        norm_layer, use_relu: after each convolution, see `pyramid_conv`.
    """

    def __init__(
        self,
        c5_channels: int,
        out_channels: int,
        use_c5: bool,
        relu: bool = True,
        num_levels: int = 2,
        norm_layer: NormLayer | None = None,
        use_relu: bool = False,
    ) -> None:
        super().__init__()
        self.use_c5, self.relu, self.num_levels = use_c5, relu, num_levels
        inputs = [c5_channels if use_c5 and k == 0 else out_channels for k in range(num_levels)]
        convs = [nn.Conv2d(c, out_channels, 3, 2, 1, bias=norm_layer is None) for c in inputs]
        for k, conv in enumerate(convs):  # after all are built: a seed keeps its weights
            self.add_module(f"p{6 + k}", prepared(conv, norm_layer, use_relu))

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        x, levels = c5 if self.use_c5 else p5, []
        for k in range(self.num_levels):
            x = strided(getattr(self, f"p{6 + k}"), F.relu(x) if self.relu and k > 0 else x)
            levels.append(x)
        return levels


class LevelP6Pool(nn.Module):
    """P6 is every second pixel of P5 (Faster R-CNN), and each further level every second pixel of the one before."""

    def __init__(self, num_levels: int = 1) -> None:
        super().__init__()
        self.num_levels = num_levels

    def forward(self, c5: Tensor, p5: Tensor) -> list[Tensor]:
        levels = [p5]
        for _ in range(self.num_levels):
            levels.append(F.max_pool2d(levels[-1], kernel_size=1, stride=2))
        return levels[1:]


class FPN(nn.Module):
    """A top-down path over the maps of a body, with further levels on top.

    Args:
        in_channels: channels of each map.
        strides: stride of each map.
        out_channels: channels of every level.
        top: the further levels.
        finest_stride: maps of a smaller stride are left out.
        norm_layer, use_relu: after each convolution, see `pyramid_conv`.
        norm_on_lateral: False leaves the norm out after the lateral convolutions.
        conv: name in `layers.convs.CONVS` of the last convolution of each level.

    Raises:
        InputError: every map is left out, or there is no such convolution.
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
        conv: str = "plain",
    ) -> None:
        super().__init__()
        output_conv = lookup(CONVS, conv, "MODEL.NECK.ARGS.conv")
        # Counted from 1 over all maps of the body, as in the names of the reference's parameters.
        self.levels = levels_from(strides, finest_stride)
        for i in self.levels:
            lateral_norm = norm_layer if norm_on_lateral else None
            self.add_module(f"fpn_inner{i}", pyramid_conv(in_channels[i - 1], out_channels, 1, lateral_norm, use_relu))
            output = output_conv(out_channels, out_channels, 3, bias=norm_layer is None)
            self.add_module(f"fpn_layer{i}", prepared(output, norm_layer, use_relu))
        self.top_blocks = top
        self.out_channels = out_channels
        above = [strides[-1] * 2**k for k in range(1, top.num_levels + 1)]  # each halves the resolution again
        self.strides = [*(strides[i - 1] for i in self.levels), *above]

    def top_down(self, features: list[Tensor]) -> list[Tensor]:
        """The body's maps -> the sums (N, out_channels, H_l, W_l) of each lateral map and all that are coarser."""
        sums: list[Tensor] = []
        for i in reversed(self.levels):
            lateral = getattr(self, f"fpn_inner{i}")(features[i - 1])
            if sums:
                # To the size of the finer map, not by a factor of 2: sizes may be odd, or equal after a dilated stage.
                lateral = lateral + F.interpolate(sums[0], size=lateral.shape[-2:], mode="nearest")
            sums.insert(0, lateral)
        return sums

    def smooth(self, sums: list[Tensor]) -> list[Tensor]:
        """The last convolution of each level of `top_down`."""
        return [getattr(self, f"fpn_layer{i}")(x) for i, x in zip(self.levels, sums, strict=True)]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """The body's maps -> the pyramid, each level (N, out_channels, H_l, W_l)."""
        outputs = self.smooth(self.top_down(features))
        return outputs + self.top_blocks(features[-1], outputs[-1])


def levels_from(strides: Sequence[int], finest_stride: int) -> list[int]:
    """The maps, counted from 1, whose stride is `finest_stride` or more.

    Raises:
        InputError: there is none.
    """
    levels = [i for i, stride in enumerate(strides, 1) if stride >= finest_stride]
    if not levels:
        raise InputError(
            f"the pyramid needs a map of stride {finest_stride} or more, but the body's strides are {list(strides)}"
        )
    return levels


def norm_layer_of(norm_name: str, use_gn: bool, num_groups: int = 32) -> NormLayer | None:
    """The norm of that name in `layers.norm.NORMS`; "" is GN with `use_gn`, else none. `num_groups` is that of GN."""
    name = norm_name or ("GN" if use_gn else "")
    if name == "GN":
        return partial(GroupNorm, num_groups=num_groups)
    return partial(norm, name) if name else None


@NECKS.register("FPN")
def fpn(
    in_channels: Sequence[int],
    strides: Sequence[int],
    out_channels: int = 256,
    use_gn: bool = False,
    use_relu: bool = False,
    norm_name: str = "",
    conv: str = "plain",
) -> FPN:
    """Faster R-CNN's pyramid: all maps of the body and a pooled level; P2..P6 on a ResNet.

    Args:
        norm_name: see `norm_layer_of`.
        conv: see `FPN`.
    """
    check_channels(out_channels=out_channels)
    norm_layer = norm_layer_of(norm_name, use_gn)
    return FPN(in_channels, strides, out_channels, LevelP6Pool(), 1, norm_layer, use_relu, conv=conv)


@NECKS.register("FPN-RETINANET")
def fpn_retinanet(
    in_channels: Sequence[int],
    strides: Sequence[int],
    out_channels: int = 256,
    use_gn: bool = False,
    use_relu: bool = False,
    use_c5: bool = True,
    relu_before_p7: bool = True,
    norm_name: str = "",
    conv: str = "plain",
    num_top: int = 2,
) -> FPN:
    """RetinaNet's pyramid: the maps from stride 8 on and two levels by convolutions; P3..P7 on a ResNet.

    Args:
        use_c5, relu_before_p7: see `LevelsP6P7`.
        norm_name: of the body's levels, see `norm_layer_of`.
        conv: see `FPN`.
        num_top: how many levels there are above the body's.

    Raises:
        ValueError: a number is out of its range.
    """
    check_channels(out_channels=out_channels)
    check_counts(at_most=MOST_LEVELS, num_top=num_top)
    top = LevelsP6P7(in_channels[-1], out_channels, use_c5, relu_before_p7, num_top)
    norm_layer = norm_layer_of(norm_name, use_gn)
    return FPN(in_channels, strides, out_channels, top, P3_STRIDE, norm_layer, use_relu, conv=conv)
