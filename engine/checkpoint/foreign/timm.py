"""State dicts of timm's classifiers, for the bodies `timm/NAME`, which tell the format since every network has names of
its own.

stages.0.blocks.0.norm.weight -> backbone.body.network.stages_0.blocks.0.norm.weight
head.fc.weight                -> classifier.head.fc.weight
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from engine.checkpoint.foreign.rename import CLASSIFIER

SIGNATURE = (r"(?!)",)
"""Matches nothing: no file is taken for one of timm's by its names."""
_NETWORK = "backbone.body.network."
_OURS = ("backbone.", "rpn.", "roi_heads.")


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict below the name of the network; names of ours stay."""
    return {name if name.startswith(_OURS) else f"{_NETWORK}{name}": tensor for name, tensor in tensors.items()}


def place(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Translated `tensors` under the `names` of the model, and what none of them fits below `classifier.`.

    timm takes some networks apart, and then writes stages_0 for stages.0, or puts them below `model`.
    """
    places = {}
    for name in names:
        plain = _plain(name)
        places[plain] = name
        places.setdefault(plain.replace(_plain(f"{_NETWORK}model."), _plain(_NETWORK)), name)

    def placed(name: str) -> str:
        if name.startswith(_NETWORK):
            return places.get(_plain(name), f"{CLASSIFIER}{name.removeprefix(_NETWORK)}")
        return name

    return {placed(name): tensor for name, tensor in tensors.items()}


def _plain(name: str) -> str:
    return name.replace(".", "_")
