"""Normalisation layers by name: `norm("GN", channels)`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from engine.registry import Registry, lookup

NORMS = Registry("NORMS")
"""(channels: int) -> module of (N, C, H, W) maps."""


class FrozenBatchNorm(FrozenBatchNorm2d):
    """Like torchvision's, except that under autocast the output keeps the type of the input.

    torchvision's would turn it into float32, and with it every activation of a frozen body.
    """

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # (C,)
        shift = self.bias - self.running_mean * scale  # (C,)
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


@NORMS.register("FrozenBN")
def FrozenBN(channels: int) -> nn.Module:
    """Batch norm with fixed statistics and weights. Like the reference, it adds no epsilon to the variance."""
    return FrozenBatchNorm(channels, eps=0.0)


@NORMS.register("BN")
def BN(channels: int) -> nn.Module:
    """Batch norm over the batch of the process (Ioffe & Szegedy, 2015)."""
    return nn.BatchNorm2d(channels)


class SyncBatchNorm(nn.SyncBatchNorm):
    """Like torch's, except that on a CPU, for which torch has no kernel, each process normalises its own batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.is_cuda else nn.BatchNorm2d.forward(self, x)


@NORMS.register("SyncBN")
def SyncBN(channels: int) -> nn.Module:
    """Batch norm over the batches of all processes; plain batch norm without a process group or a GPU."""
    return SyncBatchNorm(channels)


class GroupNorm(nn.GroupNorm):
    """Like torch's, except that it accepts a single pixel of a single image (the top level of a small image)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


@NORMS.register("GN")
def GN(channels: int, num_groups: int = 32, eps: float = 1e-5) -> nn.Module:
    """Group normalisation (Wu & He, 2018).

    Raises:
        ValueError: `num_groups` does not divide `channels`.
    """
    return GroupNorm(num_groups, channels, eps=eps)


def norm(name: str, channels: int) -> nn.Module:
    """The normalisation layer that is registered as `name`, for maps of `channels` channels.

    Raises:
        InputError: nothing is registered as `name`.
    """
    return lookup(NORMS, name, "norm")(channels)
