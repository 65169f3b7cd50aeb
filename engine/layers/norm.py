"""Normalisation layers by name: `norm("GN", channels)`, `norm("BN", channels, eps=1e-3)`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from engine.errors import InputError, shown
from engine.registry import Registry, lookup

NORMS = Registry("NORMS")
"""(channels: int) -> module of (N, C, H, W) maps; or (channels: int, eps: float = ...) if bodies may ask for it."""


NORMS.register("BN")(nn.BatchNorm2d)


@NORMS.register("FrozenBN")
class FrozenBatchNorm(FrozenBatchNorm2d):
    """Batch norm with fixed statistics and weights; as in the reference, no epsilon is added to the variance,
    unless the weights need one.

    Like torchvision's, except that under autocast the output keeps the type of the input. torchvision's would turn it
    into float32, and with it every activation of a frozen body.
    """

    def __init__(self, channels: int, eps: float = 0.0) -> None:
        super().__init__(channels, eps=eps)

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
        InputError: `num_groups` does not divide `channels`.
    """

    def __init__(self, channels: int, num_groups: int = 32, eps: float = 1e-5) -> None:
        if num_groups < 1 or channels % num_groups:
            raise InputError(
                f"norm GN: {channels} channels are not divisible into {num_groups} groups; change their number, "
                "or use a norm without groups (MODEL.RESNETS.NORM: BN for a body, USE_GN: False for a neck or head)"
            )
        super().__init__(num_groups, channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def norm(name: str, channels: int, eps: float | None = None) -> nn.Module:
    """The normalisation layer that is registered as `name`, for maps of `channels` channels.

    Args:
        eps: added to the variance. It belongs to the trained weights: the features of a body that was trained with 1e-3
            are off by a quarter with 1e-5. None is the layer's own: 1e-5, and 0 for FrozenBN.

    Raises:
        InputError: nothing is registered as `name`, the layer takes no eps, `eps` is not a number from 0 on, or the
            layer does not fit the number of channels.
    """
    layer = lookup(NORMS, name, "norm")
    if eps is None:
        return layer(channels)
    if isinstance(eps, bool) or not isinstance(eps, (int, float)) or not (math.isfinite(eps) and eps >= 0):
        raise InputError(f"norm {name}: eps must be a number from 0 on, such as 0.001, got {shown(eps)}")
    if not _takes_eps(layer):
        raise InputError(
            f"norm {name}: has no parameter eps, but these layers were made for an eps of {eps}; give it one "
            f"(def __init__(self, channels, eps=1e-5)), or use another norm ({', '.join(_BUILT_IN)})"
        )
    return layer(channels, eps=eps)


def _takes_eps(layer: Callable[..., Any]) -> bool:
    parameters = inspect.signature(layer).parameters
    return "eps" in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values())


_BUILT_IN = NORMS.names()
