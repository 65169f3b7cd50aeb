"""Weights of other projects, translated to our names by pure functions, one file per format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from engine.checkpoint.foreign import (
    atss,
    caffe2,
    detectron2,
    efficientnet_lite,
    mmdetection,
    torchvision,
    torchvision_detection,
)
from engine.checkpoint.heads import heads_fit

# Tried in this order. The reference comes last, since our names are its names. A file has the format in which each
# pattern of `SIGNATURE` matches the beginning of one of its names.
FORMATS = {
    "caffe2": caffe2,
    "torchvision": torchvision,
    "efficientnet_lite": efficientnet_lite,
    "torchvision_detection": torchvision_detection,
    "detectron2": detectron2,
    "mmdetection": mmdetection,
    "atss": atss,
}


def format_of(tensors: Mapping[str, Tensor], given: str = "auto") -> str:
    """The name of the format: `given`, or with "auto" the one recognised by the names of the tensors, or "unknown"."""
    if given == "auto":
        return next((name for name in FORMATS if _is_signed(name, tensors)), "unknown")
    is_detector = given == "torchvision" and _is_signed("torchvision_detection", tensors)
    return "torchvision_detection" if is_detector else given


def _is_signed(name: str, tensors: Mapping[str, Tensor]) -> bool:
    return all(any(re.match(pattern, each) for each in tensors) for pattern in FORMATS[name].SIGNATURE)


def translate(tensors: dict[str, Tensor], given: str = "auto") -> tuple[dict[str, Tensor], str]:
    """Tensors under our names, and the name of their format, see `format_of`."""
    name = format_of(tensors, given)
    return (tensors if name == "unknown" else FORMATS[name].translate(tensors)), name


def class_names(content: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> list[str] | None:
    """The class names in a file of the format `name` with the translated `tensors`.

    None if it has none, or not as many as its head has (the default list of a training whose classes were not set).
    """
    read_names = getattr(FORMATS.get(name), "class_names", None)
    names = read_names(content.get("meta")) if read_names else None
    return names if names and heads_fit(tensors, len(names)) else None


def conventions(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """The configuration keys and values with which translated `tensors` of the format `name` give the same results.

    Empty for formats without conventions: bodies, and the reference, whose conventions are the defaults.
    """
    conventions_of = getattr(FORMATS.get(name), "conventions", None)
    return conventions_of(tensors) if conventions_of else {}
