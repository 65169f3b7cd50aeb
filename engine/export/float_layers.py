"""Which operators of an exported network stay in float when the others become int8.

What predicts a class, a box or a place stays, and so does everything that is computed from it up to the next layer
with weights: eight bits are 256 values, too few for coordinates in an image or for ranks of scores. So does what comes
before the first layer: pixels are rounded once, where that layer takes them, padded already.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

PREDICTIONS = frozenset(
    {"cls_logits", "cls_score", "bbox_pred", "first_pred", "bbox_bins", "centerness"}
    | {"offset"}  # where a deformable convolution looks
)
"""Names of the layers that predict something; the last layers of a network do so by any name."""


@dataclass
class OperatorGraph:
    """The operators of a network, without their values.

    Attributes:
        followers: name of each operator -> names of those that take its outputs.
        weights: operator -> the parameter of the model that it multiplies by, "rpn.head.bbox_pred.weight".
    """

    followers: dict[str, list[str]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    def reachable(self, starts: Iterable[str], barriers: Collection[str] = ()) -> set[str]:
        """Operators after `starts`, which are only included if they come after each other; never past `barriers`."""
        found: set[str] = set()
        waiting = [each for start in starts for each in self.followers.get(start, ())]
        while waiting:
            name = waiting.pop()
            if name not in found and name not in barriers:
                found.add(name)
                waiting += self.followers.get(name, ())
        return found


def float_operators(graph: OperatorGraph, kept: Collection[str] = ()) -> set[str]:
    """Names of the operators that stay in float.

    Args:
        kept: modules of the model all of whose layers stay, too: "rpn.head", "backbone.body.layer1".

    Example:
        >>> followers = {"conv": ["relu"], "relu": ["logits"], "logits": ["sigmoid"], "sigmoid": ["topk"]}
        >>> weights = {"conv": "rpn.head.cls_tower.0.weight", "logits": "rpn.head.cls_logits.weight"}
        >>> sorted(float_operators(OperatorGraph(followers, weights)))
        ['logits', 'sigmoid', 'topk']
    """
    layers = {
        name
        for name, weight in graph.weights.items()
        if weight.split(".")[-2] in PREDICTIONS
        or is_within(weight, kept)
        or graph.reachable([name]).isdisjoint(graph.weights)
    }
    before = graph.followers.keys() - graph.weights.keys() - graph.reachable(graph.weights)
    return layers | graph.reachable(layers, barriers=graph.weights) | before


def is_within(weight: str, modules: Collection[str]) -> bool:
    """Whether a parameter belongs to one of `modules` or to a module inside of it.

    Example:
        >>> is_within("rpn.head.bbox_pred.weight", ["rpn"]), is_within("rpn2.weight", ["rpn"])
        (True, False)
    """
    return any(f"{weight}.".startswith(f"{module}.") for module in modules)


def unknown_modules(modules: Iterable[str], weights: Mapping[str, str]) -> list[str]:
    """Those of `modules` without a layer."""
    return [module for module in modules if not any(is_within(weight, [module]) for weight in weights.values())]
