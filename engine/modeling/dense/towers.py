"""What the heads of dense stages are made of.

Shapes: N images, L levels, A anchors per cell, C channels, H W.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.errors import InputError
from engine.layers.convs import CONVS
from engine.layers.deform_conv import DeformConv2d
from engine.layers.norm import norm
from engine.registry import lookup


class Scale(nn.Module):
    """A learned factor, one per level: the levels share their convolutions, but not the range of their boxes."""

    def __init__(self, init: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([init]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@dataclass(frozen=True)
class Towers:
    """What the towers of a head are built from (`MODEL.DENSE.TOWER_CONV` and its neighbours).

    Attributes:
        conv: name in `layers.convs.CONVS`.
        kernel_size: of the convolutions, odd.
        norm: name in `layers.norm.NORMS`, "" for the one that the stage has without this.
        num_shared: how many convolutions are one tower for classes and boxes, before their own ones.
        deformable: whether the last convolution of a tower is a modulated deformable one, of size 3.
    """

    conv: str = "plain"
    kernel_size: int = 3
    norm: str = ""
    num_shared: int = 0
    deformable: bool = False

    def build(
        self, channels: int, num_convs: int, norm_name: str = "GN"
    ) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
        """The shared tower (without layers unless `num_shared`), that of the classes and that of the boxes.

        Args:
            channels: C.
            num_convs: of a tower and the shared one before it together.
            norm_name: the stage's own norm, "" for none.

        Raises:
            InputError: more convolutions are shared than there are.
        """
        own = num_convs - self.num_shared
        if own < 0:
            raise InputError(
                f"MODEL.DENSE.TOWER_SHARED is {self.num_shared}, but the towers have {num_convs} convolutions"
            )
        shared = self.layers(channels, self.num_shared, norm_name, self.deformable and own == 0)
        cls, box = (self.layers(channels, own, norm_name, self.deformable) for _ in range(2))
        return shared, cls, box

    def layers(self, channels: int, num_convs: int, norm_name: str = "GN", deformable: bool = False) -> nn.Sequential:
        """One tower; arguments as for `tower`."""
        return tower(channels, num_convs, self.norm or norm_name, deformable, self.conv, self.kernel_size)


def tower(
    channels: int,
    num_convs: int,
    norm_name: str = "GN",
    deformable: bool = False,
    conv: str = "plain",
    kernel_size: int = 3,
) -> nn.Sequential:
    """`num_convs` times convolution, norm ("" for none) and ReLU; the last convolution may be deformable.

    Args:
        channels: C of the input and of every layer.
        conv: name in `layers.convs.CONVS`.
        kernel_size: of the convolutions but the deformable one, which is 3x3.
    """
    layers: list[nn.Module] = []
    for i in range(num_convs):
        if deformable and i == num_convs - 1:
            layers.append(DeformConv2d(channels, channels, bias=True))
        else:
            layers.append(lookup(CONVS, conv, "MODEL.DENSE.TOWER_CONV")(channels, channels, kernel_size))
        if norm_name:
            layers.append(norm(norm_name, channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def over_levels(layers: nn.Sequential, maps: list[Tensor]) -> list[Tensor]:
    """The outputs of a tower for each level, from maps (N, C, H_l, W_l).

    A batch norm in training takes its statistics from the cells of all levels together. Level by level, it would
    normalise each with statistics of its own in training, and with a mixture of them in testing.
    """
    if not any(isinstance(layer, _BatchNorm) and layer.training for layer in layers):
        return [layers(x) for x in maps]
    for layer in layers:
        maps = _over_joint_cells(layer, maps) if isinstance(layer, _BatchNorm) else [layer(x) for x in maps]
    return maps


def _over_joint_cells(layer: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """A layer that sees cells one by one, on the cells of all levels in one map: (N, C, H_l, W_l) each."""
    # Not a transposed view: torch's gradient of a batch norm on a CPU is wrong for a map of width 1 whose cells lie
    # channel by channel in memory but whose gradient does not (observed with torch 2.14).
    cells = torch.cat([x.flatten(2) for x in maps], dim=2)  # (N, C, sum of H_l W_l)
    outputs = layer(cells.contiguous()[..., None])  # (N, C, sum of H_l W_l, 1)
    per_level = outputs[..., 0].split([x.shape[2] * x.shape[3] for x in maps], dim=2)  # (N, C, H_l W_l)
    # Copies in the layout of the inputs: what follows may work in place and wants its memory dense.
    return [torch.empty_like(x).copy_(y.unflatten(2, x.shape[2:])) for x, y in zip(maps, per_level, strict=True)]


def init_head(head: nn.Module, prior: float) -> None:
    """Small weights everywhere; `head.cls_logits` starts with the score `prior` for every class (Lin et al., 2017).

    Convolutions of single channels keep the size of what they get (He et al., 2015): two small factors in a row would
    leave the norm behind them nothing but its epsilon.
    """
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            if module.groups > 1 and module.groups == module.in_channels:
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            else:
                nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in head.modules():  # afterwards: the loop above gave their offset branches weights
        if isinstance(module, DeformConv2d):
            module.reset_offsets()
    nn.init.constant_(head.cls_logits.bias, -math.log((1 - prior) / prior))


def flatten(x: Tensor, per_anchor: int) -> Tensor:
    """(N, A*per_anchor, H, W) -> (N, HWA, per_anchor), channels anchor-major."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, per_anchor)  # len(x) would fix N in an exported graph
