"""Normalisation layers by name: `norm("GN", channels)`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from engine.registry import Registry

NORMS = Registry("NORMS")


class FrozenBatchNorm(FrozenBatchNorm2d):
    """torchvision's, but that under autocast its output keeps the type of its input instead of becoming float32."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()  # (C,)
        shift = self.bias - self.running_mean * scale  # (C,)
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


@NORMS.register("FrozenBN")
def FrozenBN(channels: int) -> nn.Module:
    """Batch norm with fixed statistics and weights. The reference adds no epsilon to the variance."""
    return FrozenBatchNorm(channels, eps=0.0)


@NORMS.register("BN")
def BN(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


class SyncBatchNorm(nn.SyncBatchNorm):
    """torch's, but that on a CPU, for which it has no kernel, each process takes its own batch instead of failing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.is_cuda else nn.BatchNorm2d.forward(self, x)


@NORMS.register("SyncBN")
def SyncBN(channels: int) -> nn.Module:
    """Batch norm over the batches of all processes; plain batch norm where there is no process group or no GPU."""
    return SyncBatchNorm(channels)


class GroupNorm(nn.GroupNorm):
    """torch's, but that it accepts a single pixel of a single image (the top level of a small image)."""

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
    """The normalisation layer registered as `name` for a map of `channels`."""
    return NORMS.get(name)(channels)
