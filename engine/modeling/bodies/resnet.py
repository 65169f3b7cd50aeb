"""ResNet (He et al., 2016) and ResNeXt (Xie et al., 2017) bodies, with deformable stages.

Parameter names follow the reference: `stem.conv1`, `layer1.0.conv2`, `layer1.0.downsample.0`, ...

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from engine.layers.deform_conv import DeformConv2d
from engine.layers.norm import norm

BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class Stem(nn.Module):
    """7x7 convolution and max pooling: stride 4."""

    def __init__(self, channels: int, norm_name: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(norm_name, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.bn1(self.conv1(x)))
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def conv3x3(
    in_channels: int,
    out_channels: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    deform: str = "",
    deformable_groups: int = 1,
) -> nn.Module:
    """A 3x3 convolution without bias; `deform` is "" (plain), "v1" or "v2" (modulated)."""
    if not deform:
        return nn.Conv2d(in_channels, out_channels, 3, stride, dilation, dilation, groups, bias=False)
    return DeformConv2d(
        in_channels,
        out_channels,
        stride=stride,
        dilation=dilation,
        groups=groups,
        deformable_groups=deformable_groups,
        modulated=deform == "v2",
    )


def _shortcut(in_channels: int, out_channels: int, stride: int, norm_name: str) -> nn.Module | None:
    if in_channels == out_channels and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm(norm_name, out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18 and -34); the second may be deformable."""

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        stride: int,
        dilation: int,
        groups: int,
        norm_name: str,
        stride_in_1x1: bool,
        deform: str,
        deformable_groups: int,
    ) -> None:
        super().__init__()
        self.downsample = _shortcut(in_channels, out_channels, stride, norm_name)
        self.conv1 = conv3x3(in_channels, out_channels, stride, dilation)
        self.bn1 = norm(norm_name, out_channels)
        self.conv2 = conv3x3(
            out_channels,
            out_channels,
            1,
            dilation,
            deform=deform,
            deformable_groups=deformable_groups,
        )
        self.bn2 = norm(norm_name, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu_(out + identity)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 (ResNet-50 and deeper); the 3x3 may be grouped (ResNeXt) or deformable.

    `stride_in_1x1` puts the stride into the first 1x1 (MSRA's and Caffe2's weights) instead of the 3x3 (torchvision's).
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        stride: int,
        dilation: int,
        groups: int,
        norm_name: str,
        stride_in_1x1: bool,
        deform: str,
        deformable_groups: int,
    ) -> None:
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if stride_in_1x1 else (1, stride)
        self.downsample = _shortcut(in_channels, out_channels, stride, norm_name)
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride_1x1, bias=False)
        self.bn1 = norm(norm_name, width)
        self.conv2 = conv3x3(width, width, stride_3x3, dilation, groups, deform, deformable_groups)
        self.bn2 = norm(norm_name, width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = norm(norm_name, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = F.relu_(self.bn1(self.conv1(x)))
        out = F.relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu_(out + identity)


class ResNet(nn.Module):
    """Stem and four stages of residual blocks.

    Args:
        depth: 18, 34, 50, 101 or 152.
        stem_channels: output channels of the stem.
        res2_channels: output channels of the first stage of bottlenecks, doubled at each further one. Basic blocks
            have the width of the stage.
        groups: groups of the 3x3 convolutions (ResNeXt).
        width_per_group: channels of one group in the first stage.
        norm_name: name in `layers.norm.NORMS`.
        stride_in_1x1: see `Bottleneck`.
        res5_dilation: dilation of the last stage; with 2 it keeps its input's resolution.
        deform_stages: which stages have deformable 3x3 convolutions.
        modulated: whether these are of version 2.
        deformable_groups: groups of offsets.
        freeze_at: number of leading parts (stem, then stages) whose weights stay fixed.
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
        deform_stages: Sequence[bool] = (False, False, False, False),
        modulated: bool = False,
        deformable_groups: int = 1,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else Bottleneck
        self.stem = Stem(stem_channels, norm_name)
        self.out_channels: list[int] = []
        in_channels = stem_channels
        for i, num_blocks in enumerate(BLOCKS_PER_STAGE[depth]):
            width = groups * width_per_group * 2**i
            out_channels = width if block is BasicBlock else res2_channels * 2**i
            dilation = res5_dilation if i == 3 else 1
            stride = 1 if i == 0 or dilation > 1 else 2
            blocks = []
            for k in range(num_blocks):
                blocks.append(
                    block(
                        in_channels,
                        width,
                        out_channels,
                        stride=stride if k == 0 else 1,
                        dilation=dilation,
                        groups=groups,
                        norm_name=norm_name,
                        stride_in_1x1=stride_in_1x1,
                        deform=("v2" if modulated else "v1") if deform_stages[i] else "",
                        deformable_groups=deformable_groups,
                    )
                )
                in_channels = out_channels
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            self.out_channels.append(out_channels)
        self._init_weights()
        self._freeze(freeze_at)

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, DeformConv2d):
                module.reset_offsets()

    def _freeze(self, freeze_at: int) -> None:
        parts = [self.stem, self.layer1, self.layer2, self.layer3, self.layer4]
        for part in parts[:freeze_at]:
            for parameter in part.parameters():
                parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) -> C2, C3, C4, C5 at strides 4, 8, 16, 32."""
        x = self.stem(x)
        features = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            features.append(x)
        return features
