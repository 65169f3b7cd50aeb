"""ResNet (He et al., 2016) and ResNeXt (Xie et al., 2017) bodies with optional deformable stages.

Parameter names follow the reference: `stem.conv1`, `layer1.0.conv2`, `layer1.0.downsample.0`, ...

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from engine.layers.deform_conv import DeformConv2d
from engine.layers.norm import norm
from engine.modeling.bodies.body import BODIES, freezable

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
RESNETS = tuple(f"R-{depth}" for depth in BLOCKS_PER_STAGE)
"""The names in `BODIES`."""


@dataclass(frozen=True)
class Deformable:
    """Deformable 3x3 convolutions of a body.

    Attributes:
        stages: which stages have them.
        modulated: version 2, with masks (Zhu et al., 2018), instead of version 1 (Dai et al., 2017).
        groups: channel groups with offsets of their own.
    """

    stages: Sequence[bool] = (False, False, False, False)
    modulated: bool = False
    groups: int = 1


@dataclass(frozen=True)
class BlockShape:
    """What a residual block is built from.

    Attributes:
        width: channels between the 1x1 convolutions of a bottleneck; basic blocks do not use it.
        stride: of the block as a whole.
        dilation, groups: of the 3x3 convolutions; basic blocks have no groups.
        norm_name: name in `layers.norm.NORMS`.
        stride_in_1x1: see `Bottleneck`.
        deformable: None for plain convolutions; its `stages` are not used here.
    """

    in_channels: int
    width: int
    out_channels: int
    stride: int
    dilation: int
    groups: int
    norm_name: str
    stride_in_1x1: bool
    deformable: Deformable | None


class Stem(nn.Module):
    """7x7 convolution and max pooling: stride 4."""

    stride = 4

    def __init__(self, channels: int, norm_name: str, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(norm_name, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / 4, W / 4)."""
        x = F.relu_(self.bn1(self.conv1(x)))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def conv3x3(
    in_channels: int,
    out_channels: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    deformable: Deformable | None = None,
) -> nn.Module:
    """A 3x3 convolution without bias, deformable unless `deformable` is None."""
    if deformable is None:
        return nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)
    return DeformConv2d(
        in_channels,
        out_channels,
        stride=stride,
        dilation=dilation,
        groups=groups,
        deformable_groups=deformable.groups,
        modulated=deformable.modulated,
    )


def _shortcut(shape: BlockShape) -> nn.Module | None:
    """A projection where the block changes channels or resolution; elsewhere the identity needs no module."""
    if shape.in_channels == shape.out_channels and shape.stride == 1:
        return None
    conv = nn.Conv2d(shape.in_channels, shape.out_channels, 1, shape.stride, bias=False)
    return nn.Sequential(conv, norm(shape.norm_name, shape.out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18 and -34); only the second one may be deformable."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        channels = shape.out_channels
        self.downsample = _shortcut(shape)
        self.conv1 = conv3x3(shape.in_channels, channels, shape.stride, shape.dilation)
        self.bn1 = norm(shape.norm_name, channels)
        self.conv2 = conv3x3(channels, channels, dilation=shape.dilation, deformable=shape.deformable)
        self.bn2 = norm(shape.norm_name, channels)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu_(out + identity)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions (ResNet-50 and deeper); the 3x3 may be grouped (ResNeXt) or deformable.

    `stride_in_1x1` puts the stride into the first 1x1, as MSRA's and Caffe2's weights expect, instead of the 3x3, as
    torchvision's do.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        width, norm_name = shape.width, shape.norm_name
        stride_1x1, stride_3x3 = (shape.stride, 1) if shape.stride_in_1x1 else (1, shape.stride)
        self.downsample = _shortcut(shape)
        self.conv1 = nn.Conv2d(shape.in_channels, width, 1, stride_1x1, bias=False)
        self.bn1 = norm(norm_name, width)
        self.conv2 = conv3x3(width, width, stride_3x3, shape.dilation, shape.groups, shape.deformable)
        self.bn2 = norm(norm_name, width)
        self.conv3 = nn.Conv2d(width, shape.out_channels, 1, bias=False)
        self.bn3 = norm(norm_name, shape.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu_(out + identity)


class ResNet(nn.Module):
    """A stem and four stages of residual blocks.

    Args:
        depth: 18, 34, 50, 101 or 152.
        stem_channels: output channels of the stem.
        res2_channels: output channels of the first stage of bottlenecks, doubled in each later one. Stages of basic
            blocks have `groups * width_per_group` channels, doubled likewise.
        groups: groups of the 3x3 convolutions of bottlenecks (ResNeXt).
        width_per_group: channels of each group in the first stage.
        norm_name: name in `layers.norm.NORMS`.
        stride_in_1x1: see `Bottleneck`.
        res5_dilation: dilation of the last stage; with 2 the stage keeps the resolution of its input.
        deformable: which stages have deformable 3x3 convolutions, and of which kind.
        in_channels: of the images.

    Attributes:
        out_channels, strides: of C2, C3, C4 and C5.

    Raises:
        ValueError: `deformable` does not have one entry per stage.
    """

    def __init__(
        self,
        depth: int,
        stem_channels: int = 64,
        res2_channels: int = 256,
        groups: int = 1,
        width_per_group: int = 64,
        norm_name: str = "FrozenBN",
        stride_in_1x1: bool = True,
        res5_dilation: int = 1,
        deformable: Deformable = Deformable(),  # noqa: B008, it is immutable
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        if len(deformable.stages) != len(BLOCKS_PER_STAGE[depth]):
            raise ValueError(
                f"deformable must say of each of the {len(BLOCKS_PER_STAGE[depth])} stages whether it is, got "
                f"{tuple(deformable.stages)}"
            )
        block = BasicBlock if depth < 50 else Bottleneck
        self.stem = Stem(stem_channels, norm_name, in_channels)
        self.out_channels: list[int] = []
        self.strides: list[int] = []
        channels, total_stride = stem_channels, Stem.stride
        for i, num_blocks in enumerate(BLOCKS_PER_STAGE[depth]):
            width = groups * width_per_group * 2**i
            out_channels = width if block is BasicBlock else res2_channels * 2**i
            dilation = res5_dilation if i == 3 else 1
            # The stem has halved twice already; dilation takes the place of a stride.
            stride = 1 if i == 0 or dilation > 1 else 2
            first = BlockShape(
                channels,
                width,
                out_channels,
                stride,
                dilation,
                groups,
                norm_name,
                stride_in_1x1,
                deformable if deformable.stages[i] else None,
            )
            later = replace(first, in_channels=out_channels, stride=1)
            self.add_module(f"layer{i + 1}", nn.Sequential(block(first), *(block(later) for _ in range(1, num_blocks))))
            channels, total_stride = out_channels, total_stride * stride
            self.out_channels.append(out_channels)
            self.strides.append(total_stride)
        self._init_weights()

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # The loop above has also drawn the offset branches, which must start at zero.
        for module in self.modules():
            if isinstance(module, DeformConv2d):
                module.reset_offsets()

    def layer_groups(self) -> list[nn.Module]:
        """Stem and stages, from the image on; see `Body`."""
        return [self.stem, self.layer1, self.layer2, self.layer3, self.layer4]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> C2, C3, C4, C5, each (N, out_channels[i], H / strides[i], W / strides[i])."""
        x = self.stem(x)
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features


resnet = freezable(ResNet)

for _depth in BLOCKS_PER_STAGE:
    BODIES.register(f"R-{_depth}")(partial(resnet, _depth))
