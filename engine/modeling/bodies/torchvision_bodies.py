"""Bodies from torchvision's classifiers: MobileNetV3 (Howard et al., 2019), ConvNeXt (Liu et al., 2022), Swin (Liu et
al., 2021) and Swin V2 (Liu et al., 2022).

Parameter names are torchvision's: `features.0.0.weight`, ...

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torchvision import models

from engine.modeling.bodies.adopted import set_depthwise, set_input_channels, set_norms
from engine.modeling.bodies.body import BODIES, freeze


@dataclass(frozen=True)
class Cut:
    """A network of torchvision, cut where its resolution halves.

    Attributes:
        network: torchvision's name.
        ends: how many of its `features` make the stem, the stem and the first stage, and so on.
        out_channels: of the stages, which have the strides 4, 8, 16 and 32.
        is_channels_last: its maps are (N, H, W, C).
    """

    network: str
    ends: tuple[int, ...] = (1, 2, 4, 6, 8)  # a stem of 4 x 4 pixels; from the second on, stages begin with a reduction
    out_channels: tuple[int, ...] = (96, 192, 384, 768)
    is_channels_last: bool = False


TORCHVISION_BODIES = {
    "MobileNetV3-Large": Cut("mobilenet_v3_large", (2, 4, 7, 13, 17), (24, 40, 112, 960)),
    "MobileNetV3-Small": Cut("mobilenet_v3_small", (1, 2, 4, 9, 13), (16, 24, 48, 576)),
    "ConvNeXt-Tiny": Cut("convnext_tiny"),
    "ConvNeXt-Small": Cut("convnext_small"),
    "Swin-T": Cut("swin_t", is_channels_last=True),
    "Swin-S": Cut("swin_s", is_channels_last=True),
    "Swin-V2-T": Cut("swin_v2_t", is_channels_last=True),
}
"""By name in `BODIES`."""


class TorchvisionBody(nn.Module):
    """The features of a classifier of torchvision, from random weights.

    Args:
        name: in `TORCHVISION_BODIES`.
        norm_name: see `adopted.set_norms`.
        freeze_at: how many leading parts (stem, then stages) stay fixed, see `freeze`.
        in_channels: of the images.

    Attributes:
        out_channels, strides: of the last maps of strides 4, 8, 16 and 32.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, name: str, norm_name: str = "FrozenBN", freeze_at: int = 0, in_channels: int = 3) -> None:
        super().__init__()
        self.cut = TORCHVISION_BODIES[name]
        self.out_channels = self.cut.out_channels
        self.features: nn.Sequential = models.get_model(self.cut.network, weights=None).features
        set_input_channels(self.features, in_channels)
        set_depthwise(self.features)
        set_norms(self.features, norm_name, name)
        freeze(self.layer_groups(), freeze_at)

    def layer_groups(self) -> list[nn.Module]:
        """Stem and stages, from the image on; see `Body`."""
        ends = self.cut.ends
        return [nn.ModuleList(self.features[start:end]) for start, end in zip((0, *ends), ends, strict=False)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> four maps, each (N, out_channels[i], about H / strides[i], about W / strides[i])."""
        maps = []
        for number, layer in enumerate(self.features, 1):
            x = layer(x)
            if number in self.cut.ends[1:]:
                maps.append(x.permute(0, 3, 1, 2) if self.cut.is_channels_last else x)  # (N, C, H, W)
        return maps


for _name in TORCHVISION_BODIES:
    BODIES.register(_name)(partial(TorchvisionBody, _name))
