"""Bodies by name (`MODEL.BACKBONE.NAME`): from images to feature maps. R-18 to R-152 are in `resnet`.

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from engine.registry import Registry

BODIES = Registry("BODIES")
"""(**arguments) -> Body; the arguments are those of `MODEL.BACKBONE.ARGS`.

A body that has parameters of these names is also passed `norm` or `norm_name`, a name in `layers.norm.NORMS`;
`freeze_at`, the number of leading parts whose weights stay fixed (see `freeze`); `in_channels`, those of the images,
which a body without it takes for 3; `deformable`, a `resnet.Deformable`.
"""

_FIRST_STRIDE = 4


class Body(Protocol):
    """A module that turns images into feature maps, from fine to coarse, of any number.

    It may also have a method `layer_groups() -> Sequence[nn.Module]`: its parts from the image on, which
    `SOLVER.LAYER_LR_FACTOR` gives learning rates of their own. Several modules form one part in an `nn.ModuleList`.
    Without the method, the parts are the body's children, or the elements of those that are an `nn.ModuleList`.

    Attributes:
        out_channels: channels of each map.
        strides: of each map, input pixels per cell. A body without the attribute has 4, 8, 16, ...
    """

    out_channels: Sequence[int]
    strides: Sequence[int]

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> maps (N, out_channels[i], about H / strides[i], about W / strides[i])."""


def strides_of(body: nn.Module) -> tuple[int, ...]:
    """The body's `strides`; without the attribute 4, 8, 16, ..., since all bodies had these before they could say."""
    stated = getattr(body, "strides", None)
    return tuple(_FIRST_STRIDE * 2**i for i in range(len(body.out_channels))) if stated is None else tuple(stated)


def freeze(parts: Sequence[nn.Module], freeze_at: int) -> None:
    """Fix the weights of the first `freeze_at` parts. The statistics of batch norms in them still move in training."""
    for part in parts[:freeze_at]:
        part.requires_grad_(False)
