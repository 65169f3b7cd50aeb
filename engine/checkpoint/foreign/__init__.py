"""Weights of other projects, translated to our names by pure functions, one file per format.

`FORMATS` is the registry; a format of the user's own is registered in it by a module of `IMPORTS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from engine.checkpoint.foreign import (
    atss,
    caffe2,
    detectron2,
    efficientnet_lite,
    mmdetection,
    plain,
    timm,
    torchvision,
    torchvision_detection,
    torchvision_features,
)
from engine.checkpoint.foreign.formats import FALLBACKS, FORMATS, as_names
from engine.checkpoint.foreign.rename import VARIANCE
from engine.checkpoint.heads import heads_fit
from engine.errors import InputError, shown

__all__ = ["FORMATS", "class_names", "conventions", "format_of", "norm_eps", "placed", "translate"]

# They are tried in this order; those of the user come before the last two, see `formats.FALLBACKS`.
FORMATS.register("caffe2")(caffe2)
FORMATS.register("torchvision")(torchvision)
FORMATS.register("efficientnet_lite")(efficientnet_lite)
FORMATS.register("torchvision_features")(torchvision_features)
FORMATS.register("timm")(timm)
FORMATS.register("torchvision_detection")(torchvision_detection)
FORMATS.register("detectron2")(detectron2)
FORMATS.register("mmdetection")(mmdetection)
FORMATS.register("atss")(atss)
FORMATS.register("plain")(plain)

UNKNOWN = "unknown"


def format_of(tensors: Mapping[str, Tensor], given: str = "auto") -> str:
    """The name of the format: `given`, or with "auto" the one recognised by the names of the tensors, or "unknown".

    Raises:
        InputError: a format without SIGNATURE, or one that is no regular expression.
    """
    if given == "auto":
        names = [name for name, _ in FORMATS if name not in FALLBACKS]
        return next((name for name in [*names, *FALLBACKS] if _is_signed(name, tensors)), UNKNOWN)
    is_detector = given == "torchvision" and _is_signed("torchvision_detection", tensors)
    return "torchvision_detection" if is_detector else given


def _is_signed(name: str, tensors: Mapping[str, Tensor]) -> bool:
    patterns = _part(name, "SIGNATURE")
    try:
        return all(any(re.match(pattern, each) for each in tensors) for pattern in as_names(patterns))
    except (TypeError, re.error) as error:
        raise InputError(
            f"weights format {name}: its SIGNATURE must be regular expressions, not {shown(patterns)} ({error})"
        ) from None


def translate(tensors: dict[str, Tensor], given: str = "auto") -> tuple[dict[str, Tensor], str]:
    """Tensors under our names, and the name of their format, see `format_of`.

    Raises:
        InputError: a format without a function `translate`, or whose function returns no tensors by name.
    """
    name = format_of(tensors, given)
    if name == UNKNOWN:
        return tensors, name
    translated = _part(name, "translate")(tensors)
    is_right = isinstance(translated, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in translated.items()
    )
    if not is_right:
        raise InputError(f"weights format {name}: translate must return tensors by name, not {shown(translated)}")
    return dict(translated), name


def placed(tensors: Mapping[str, Tensor], names: Iterable[str], name: str) -> dict[str, Tensor]:
    """Translated `tensors` of the format `name` for a model whose tensors have `names`, see `Format`."""
    place = _optional_part(name, "place")
    return place(tensors, names) if place else dict(tensors)


def class_names(content: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str) -> list[str] | None:
    """The class names in a file of the format `name` with the translated `tensors`.

    None if it has none, or not as many as its head has (the default list of a training whose classes were not set).
    """
    read_names = _optional_part(name, "class_names")
    names = read_names(content.get("meta")) if read_names else None
    return list(names) if names and heads_fit(tensors, len(names)) else None


def conventions(tensors: Mapping[str, Tensor], name: str) -> dict[str, Any]:
    """The configuration keys and values with which translated `tensors` of the format `name` give the same results.

    Empty for formats without conventions: some bodies, and the reference, whose conventions are the defaults.
    """
    conventions_of = _optional_part(name, "conventions")
    return dict(conventions_of(tensors)) if conventions_of else {}


def norm_eps(tensors: Mapping[str, Tensor], name: str) -> dict[str, float] | None:
    """The eps of each batch norm in translated `tensors` by the name of the layer; None if the format states none."""
    of_layers, of_all = _optional_part(name, "norm_eps"), _optional_part(name, "NORM_EPS")
    if of_layers:
        return {layer: float(eps) for layer, eps in of_layers(tensors).items()}
    if of_all is None:
        return None
    eps = float(of_all)
    return {each.removesuffix(VARIANCE): eps for each in tensors if each.endswith(VARIANCE)}


def _part(name: str, attribute: str) -> Any:
    part = _optional_part(name, attribute)
    if part is None:
        raise InputError(f"weights format {name}: has no {attribute}; see docs/extending.md")
    return part


def _optional_part(name: str, attribute: str) -> Any:
    return getattr(FORMATS.get(name), attribute, None) if name in FORMATS else None
