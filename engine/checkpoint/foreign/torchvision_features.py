"""State dicts of torchvision's classifiers whose layers are all in `features`: MobileNet, EfficientNet, ConvNeXt, Swin.

features.3.block.0.0.weight -> backbone.body.features.3.block.0.0.weight
classifier.0.weight         -> the same
head.weight                 -> classifier.head.weight
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from engine.checkpoint.foreign.rename import CLASSIFIER, IMAGENET_RGB

SIGNATURE = (r"features\.0\.0\.weight$", r"features\.1\.(?:0\.)?(?:block|conv|norm1)\.")


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names; what follows the features is gathered below `classifier.`, which is not used."""
    return {_rename(name): tensor for name, tensor in tensors.items()}


def conventions(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The images that its classifiers were trained on, all of them the same."""
    return dict(IMAGENET_RGB)


def _rename(name: str) -> str:
    if name.startswith("features."):
        return f"backbone.body.{name}"
    return name if name.startswith(CLASSIFIER) else f"{CLASSIFIER}{name}"
