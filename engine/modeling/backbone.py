"""A body and a neck: from images to a pyramid of feature maps.

Shapes: N images, C channels, H W; levels run from fine to coarse.
"""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """A body and its neck.

    Args:
        body: see `bodies.Body`.
        neck: see `necks.Neck`.
    """

    def __init__(self, body: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.fpn = neck  # the reference's name: checkpoints have `backbone.fpn.*`, whatever the neck

    @property
    def out_channels(self) -> int:
        """Channels of every level."""
        return self.fpn.out_channels

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels per cell of each level."""
        return tuple(self.fpn.strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> the levels, each (N, out_channels, about H / strides[l], about W / strides[l])."""
        return self.fpn(self.body(images))
