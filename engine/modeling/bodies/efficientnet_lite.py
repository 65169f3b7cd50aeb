"""EfficientNet-Lite bodies: EfficientNet (Tan & Le, 2019) made for CPUs and for 8-bit numbers.

Against EfficientNet-B they have ReLU6 in place of swish and no squeeze-and-excitation, and the first convolution and
the numbers of blocks of the first and last stage are not scaled. They consist of inverted bottlenecks (Sandler et al.,
2018: MobileNetV2). Padding and epsilon are those of TensorFlow, where they were trained; see `layers.same_padding`.

Parameter names: `stem.conv`, `stem.block.depthwise`, `layer1.0.expand`, `layer1.0.expand_bn`, ...

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

import math
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from engine.layers.depthwise import DepthwiseConv2d
from engine.layers.norm import norm
from engine.layers.same_padding import SameConv2d
from engine.modeling.arguments import check_range
from engine.modeling.bodies.body import BODIES, freeze

SCALES = {"Lite0": (1.0, 1.0), "Lite1": (1.0, 1.1), "Lite2": (1.1, 1.2)}
"""Factors of the channels and of the blocks per stage."""
EFFICIENTNET_LITES = tuple(f"EfficientNet-{name}" for name in SCALES)
"""The names in `BODIES`."""
NORM_EPS = 1e-3
STEM_CHANNELS = 32

# Blocks, kernel size, stride, expansion and output channels of the stages (table 1 of the paper), those of a resolution
# together.
_FIRST = (1, 3, 1, 1, 16)
_LAYERS = (
    ((2, 3, 2, 6, 24),),
    ((2, 5, 2, 6, 40),),
    ((3, 3, 2, 6, 80), (3, 5, 1, 6, 112)),
    ((4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)


def scaled_channels(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8, but not down by more than 10 %.

    Example:
        >>> [scaled_channels(channels, 1.1) for channels in (16, 24, 40, 320)]
        [16, 24, 48, 352]
    """
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class InvertedBottleneck(nn.Module):
    """1x1 to more channels, depthwise k x k, 1x1 to fewer without an activation; added to its input if shapes agree.

    Args:
        expansion: channels inside per input channel; 1 leaves the first 1x1 out.
        drop: probability per image that in training only the input passes (stochastic depth, Huang et al., 2016).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        expansion: int,
        norm_name: str,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        inside = in_channels * expansion
        self.is_residual = stride == 1 and in_channels == out_channels
        if expansion > 1:
            self.expand = nn.Conv2d(in_channels, inside, 1, bias=False)
            self.expand_bn = norm(norm_name, inside, NORM_EPS)
        else:
            self.expand = None
        self.depthwise = DepthwiseConv2d(inside, kernel_size, stride, bias=False, same=True)
        self.depthwise_bn = norm(norm_name, inside, NORM_EPS)
        self.project = nn.Conv2d(inside, out_channels, 1, bias=False)
        self.project_bn = norm(norm_name, out_channels, NORM_EPS)
        self.drop = StochasticDepth(drop, "row")

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        out = x
        if self.expand is not None:
            out = F.relu6(self.expand_bn(self.expand(out)), inplace=True)
        out = F.relu6(self.depthwise_bn(self.depthwise(out)), inplace=True)
        out = self.project_bn(self.project(out))
        return self.drop(out) + x if self.is_residual else out


class Stem(nn.Module):
    """3x3 convolution and a first block: stride 2."""

    stride = 2

    def __init__(self, out_channels: int, norm_name: str, in_channels: int) -> None:
        super().__init__()
        self.conv = SameConv2d(in_channels, STEM_CHANNELS, 3, self.stride, bias=False)
        self.bn = norm(norm_name, STEM_CHANNELS, NORM_EPS)
        _, kernel_size, stride, expansion, _ = _FIRST
        self.block = InvertedBottleneck(STEM_CHANNELS, out_channels, kernel_size, stride, expansion, norm_name)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 2, W / 2)."""
        return self.block(F.relu6(self.bn(self.conv(x)), inplace=True))


class EfficientNetLite(nn.Module):
    """A stem and four layers of inverted bottlenecks, which end where the resolution halves.

    Args:
        width, depth: factors of the channels and of the blocks per stage.
        norm_name: name in `layers.norm.NORMS`.
        freeze_at: how many leading parts (stem, then layers) stay fixed, see `freeze`.
        in_channels: of the images.
        drop_connect: see `InvertedBottleneck`; the probability of the last block, from 0 at the first on. The published
            training had 0.2.

    Attributes:
        out_channels, strides: of the last maps of strides 4, 8, 16 and 32.
    """

    def __init__(
        self,
        width: float,
        depth: float,
        norm_name: str = "BN",
        freeze_at: int = 0,
        in_channels: int = 3,
        drop_connect: float = 0.0,
    ) -> None:
        super().__init__()
        check_range(at_least=0, at_most=1, drop_connect=drop_connect)
        channels = scaled_channels(_FIRST[-1], width)
        self.stem = Stem(channels, norm_name, in_channels)
        self.out_channels: list[int] = []
        self.strides: list[int] = []
        last_stage = _LAYERS[-1][-1]  # like the first, it keeps its number of blocks
        repeats = {
            stage: stage[0] if stage is last_stage else math.ceil(depth * stage[0])
            for layer in _LAYERS
            for stage in layer
        }
        num_blocks, placed, total_stride = 1 + sum(repeats.values()), 1, Stem.stride
        for i, layer in enumerate(_LAYERS, 1):
            blocks = []
            for stage in layer:
                _, kernel_size, stage_stride, expansion, stage_channels = stage
                out_channels = scaled_channels(stage_channels, width)
                for k in range(repeats[stage]):
                    stride = stage_stride if k == 0 else 1
                    drop = drop_connect * placed / num_blocks
                    shape = (channels, out_channels, kernel_size, stride, expansion)
                    blocks.append(InvertedBottleneck(*shape, norm_name, drop))
                    channels, placed, total_stride = out_channels, placed + 1, total_stride * stride
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
            self.out_channels.append(channels)
            self.strides.append(total_stride)
        self._init_weights()
        freeze(self.layer_groups(), freeze_at)

    def _init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # torch's fan_out does not count groups: depthwise weights would start 1 / sqrt(channels) too small.
                fan_out = module.out_channels // module.groups * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def layer_groups(self) -> list[nn.Module]:
        """Stem (stride 2) and layers (strides 4, 8, 16 and 32), from the image on; see `Body`."""
        return [self.stem, self.layer1, self.layer2, self.layer3, self.layer4]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> four maps, each (N, out_channels[i], H / strides[i], W / strides[i]), rounded up."""
        x = self.stem(x)
        features = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


for _name, _scale in SCALES.items():
    BODIES.register(f"EfficientNet-{_name}")(partial(EfficientNetLite, *_scale))
