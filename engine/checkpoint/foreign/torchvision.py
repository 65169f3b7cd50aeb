"""State dicts of torchvision's ResNet and ResNeXt classifiers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from engine.checkpoint.foreign.rename import IMAGENET_RGB

_BODY = re.compile(r"(?:conv1|bn1|layer[1-4]\.\d+)\.")
SIGNATURE = (r"conv1\.weight$", r"layer1\.0\.conv1\.weight$")
NORM_EPS = 1e-5


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names: the body below `backbone.body`; `fc` keeps its name."""
    return {_rename(name): tensor for name, tensor in tensors.items()}


def conventions(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The images that its classifiers were trained on, all of them the same."""
    return dict(IMAGENET_RGB)


def _rename(name: str) -> str:
    if not _BODY.match(name):
        return name
    return f"backbone.body.{'' if name.startswith('layer') else 'stem.'}{name}"
