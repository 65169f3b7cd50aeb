"""Weights of other projects, translated to our names by pure functions, one file a format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from engine.checkpoint.foreign import atss, caffe2, detectron2, mmdetection, torchvision, torchvision_detection
from engine.checkpoint.heads import heads_fit

# Tried in this order; the reference's format is what remains, since ours has its names.
FORMATS = {
    "caffe2": caffe2,
    "torchvision": torchvision,
    "torchvision_detection": torchvision_detection,
    "detectron2": detectron2,
    "mmdetection": mmdetection,
    "atss": atss,
}


def format_of(tensors: Mapping[str, Tensor], told: str = "auto") -> str:
    """The name of the format: the one told, or the one that the names of the tensors give away, "unknown" for none."""
    if told == "auto":
        return next((name for name, module in FORMATS.items() if module.recognises(tensors)), "unknown")
    is_detector = told == "torchvision" and torchvision_detection.recognises(tensors)
    return "torchvision_detection" if is_detector else told


def translate(tensors: dict[str, Tensor], told: str = "auto") -> tuple[dict[str, Tensor], str]:
    """Tensors under our names, and the name of their format, see `format_of`."""
    name = format_of(tensors, told)
    return (tensors if name == "unknown" else FORMATS[name].translate(tensors)), name


def class_names(content: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> list[str] | None:
    """The class names that a file of the format `name` holds beside its translated `tensors`.

    None where it names none, or another number of them than its head has (the default list of a training that was
    never told its own classes).
    """
    tell = getattr(FORMATS.get(name), "class_names", None)
    names = tell(content.get("meta")) if tell else None
    return names if names and heads_fit(tensors, len(names)) else None


def conventions(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """What a configuration must say for translated `tensors` of the format `name` to mean what they did, by key.

    Empty where the format says nothing: bodies, and the reference, whose conventions are the defaults.
    """
    tell = getattr(FORMATS.get(name), "conventions", None)
    return tell(tensors) if tell else {}
