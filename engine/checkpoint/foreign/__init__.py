"""Weights of other projects, translated to our names by pure functions, one file a format."""

from __future__ import annotations

from torch import Tensor

from engine.checkpoint.foreign import atss, caffe2, torchvision

# Tried in this order; the reference's format is what remains, since ours has its names.
_FORMATS = {"caffe2": caffe2, "torchvision": torchvision, "atss": atss}


def translate(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Tensors under our names, and the name of the format that their names gave away."""
    for name, module in _FORMATS.items():
        if module.detect(tensors):
            return module.translate(tensors), name
    return tensors, "unknown"
