"""What the heads of dense stages are made of.

Shapes: N images, A anchors per cell, C channels, H W.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engine.layers.deform_conv import DeformConv2d
from engine.layers.norm import norm


class Scale(nn.Module):
    """A learned factor, one per level: the levels share their convolutions, but not the range of their boxes."""

    def __init__(self, init: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([init]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def tower(channels: int, num_convs: int, norm_name: str = "GN", deformable: bool = False) -> nn.Sequential:
    """`num_convs` times 3x3 convolution, norm ("" for none) and ReLU; the last convolution may be deformable."""
    layers: list[nn.Module] = []
    for i in range(num_convs):
        if deformable and i == num_convs - 1:
            layers.append(DeformConv2d(channels, channels, bias=True))
        else:
            layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        if norm_name:
            layers.append(norm(norm_name, channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def init_head(head: nn.Module, prior: float) -> None:
    """Small weights everywhere; `head.cls_logits` starts with the score `prior` for every class (Lin et al., 2017)."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    for module in head.modules():  # afterwards: the loop above gave their offset branches weights
        if isinstance(module, DeformConv2d):
            module.reset_offsets()
    nn.init.constant_(head.cls_logits.bias, -math.log((1 - prior) / prior))


def flatten(x: Tensor, per_anchor: int) -> Tensor:
    """(N, A*per_anchor, H, W) -> (N, HWA, per_anchor), channels anchor-major."""
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, per_anchor)
