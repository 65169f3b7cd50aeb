"""Necks by name (`MODEL.NECK.NAME`): from the maps of a body to a pyramid.

FPN and FPN-RETINANET are in `fpn`, PAFPN in `pafpn`, DyHead in `dyhead`.

Shapes: N images, C channels, H W; levels run from fine to coarse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from engine.registry import Registry

NECKS = Registry("NECKS")
"""(in_channels: Sequence[int], strides: Sequence[int], **arguments) -> Neck.

`in_channels` and `strides` are those of the body's maps, `arguments` those of `MODEL.NECK.ARGS`. A neck that has a
parameter `out_channels` is also passed `MODEL.RESNETS.BACKBONE_OUT_CHANNELS`.
"""


class Neck(Protocol):
    """A module that turns the maps of a body into the levels that heads work on, of any number.

    Attributes:
        out_channels: channels of every level.
        strides: of each level, input pixels per cell.
    """

    out_channels: int
    strides: Sequence[int]

    def __call__(self, features: list[Tensor]) -> list[Tensor]:
        """The body's maps -> levels (N, out_channels, about H / strides[l], about W / strides[l])."""
