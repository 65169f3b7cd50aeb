"""Bodies by name (`MODEL.BACKBONE.NAME`): from images to feature maps. R-18 to R-152 are in `resnet`.

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from engine.errors import InputError
from engine.registry import Registry

BODIES = Registry("BODIES")
"""(**arguments) -> Body; the arguments are those of `MODEL.BACKBONE.ARGS`.

A body that has parameters of these names is also passed `norm` or `norm_name`, a name in `layers.norm.NORMS`;
`freeze_at`, the number of leading parts that stay fixed (see `freeze`); `in_channels`, those of the images, which
a body without it takes for 3; `deformable`, a `resnet.Deformable`.
"""

_FIRST_STRIDE = 4


class Body(Protocol):
    """A module that turns images into feature maps, from fine to coarse, of any number.

    It may also have a method `layer_groups() -> Sequence[nn.Module]`: its parts from the image on, which
    `SOLVER.LAYER_LR_FACTOR` gives learning rates of their own. Several modules form one part in an `nn.ModuleList`.
    Without the method, the parts are the body's children, or the elements of those that are an `nn.ModuleList`.

    A body whose weights come in files of another package, which cannot be recognised by their names, may have an
    attribute `weights_format`, their format in `checkpoint.foreign.FORMATS`, and `pixel_mean` and `pixel_std`, of the
    images they were trained on: RGB in [0, 1].

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
    """Fix the first `freeze_at` parts for good: their weights, and what they compute.

    Their modules stay in evaluation mode whatever `train()` is called on the model around them, so that batch norms use
    and keep their running statistics, and dropout and stochastic depth are off.

    Raises:
        InputError: there are fewer parts, or `freeze_at` is below 0.
    """
    if not 0 <= freeze_at <= len(parts):
        raise InputError(
            f"MODEL.BACKBONE.FREEZE_CONV_BODY_AT is {freeze_at}, but the body has {len(parts)} parts to freeze; "
            f"write 0 to {len(parts)}"
        )
    for part in parts[:freeze_at]:
        part.requires_grad_(False)
        # Each module by itself, since a part may be a list made for this call, which no `train()` passes through.
        for module in part.modules():
            module.train = partial(_stay_in_evaluation, module)
        part.eval()


def freezable(body: type[nn.Module]) -> Callable[..., nn.Module]:
    """`body`, which has a method `layer_groups()`, with one more argument: `freeze_at`, see `freeze`."""

    def build(*args: Any, freeze_at: int = 0, **kwargs: Any) -> nn.Module:
        built = body(*args, **kwargs)
        freeze(built.layer_groups(), freeze_at)
        return built

    signature = inspect.signature(body)
    own = inspect.Parameter("freeze_at", inspect.Parameter.KEYWORD_ONLY, default=0, annotation="int")
    build.__signature__ = signature.replace(parameters=[*signature.parameters.values(), own])
    return build


def is_frozen(module: nn.Module) -> bool:
    """Whether `freeze` has fixed this module."""
    return getattr(module.train, "func", None) is _stay_in_evaluation


def _stay_in_evaluation(module: nn.Module, mode: bool = True) -> nn.Module:
    """`nn.Module.train` of a frozen module: it ignores `mode`."""
    return type(module).train(module, False)
