"""Normalisation layers by name: `norm("GN", channels)`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from engine.registry import Registry, lookup

NORMS = Registry("NORMS")
"""(channels: int) -> module of (N, C, H, W) maps."""


NORMS.register("BN")(nn.BatchNorm2d)


@NORMS.register("FrozenBN")
class FrozenBatchNorm(FrozenBatchNorm2d):
    """Batch norm with fixed statistics and weights; as in the reference, no epsilon is added to the variance.

    Like torchvision's, except that under autocast the output keeps the type of the input. torchvision's would turn it
    into float32, and with it every activation of a frozen body.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=0.0)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # (C,)
        shift = self.bias - self.running_mean * scale  # (C,)
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


@NORMS.register("SyncBN")
class SyncBatchNorm(nn.SyncBatchNorm):
    """Batch norm over the batches of all processes; plain batch norm without a process group or a GPU.

    Like torch's, except that on a CPU, for which torch has no kernel, each process normalises its own batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.is_cuda else nn.BatchNorm2d.forward(self, x)


@NORMS.register("GN")
class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He, 2018), in 32 groups unless `num_groups` says otherwise.

    Like torch's, except that it accepts a single pixel of a single image (the top level of a small image).

    Raises:
        ValueError: `num_groups` does not divide `channels`.
    """

    def __init__(self, channels: int, num_groups: int = 32) -> None:
        if num_groups < 1 or channels % num_groups:
            raise ValueError(f"{channels} channels are not divisible into {num_groups} groups of a group norm")
        super().__init__(num_groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def norm(name: str, channels: int) -> nn.Module:
    """The normalisation layer that is registered as `name`, for maps of `channels` channels.

    Raises:
        InputError: nothing is registered as `name`.
    """
    return lookup(NORMS, name, "norm")(channels)
