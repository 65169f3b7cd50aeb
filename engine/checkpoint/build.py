"""cfg -> a model with its initial weights; what weights ask of cfg."""

from __future__ import annotations

from functools import partial, reduce
from typing import Any

from torch import nn
from yacs.config import CfgNode

from engine.checkpoint.report import LoadReport
from engine.checkpoint.weights import SURGERIES, WeightFile, load_weights, read_weights
from engine.log import get_logger
from engine.modeling.build import num_classes


def load_initial_weights(cfg: CfgNode, model: nn.Module) -> LoadReport:
    """Fill `model` from `MODEL.WEIGHT`, after the `MODEL.WEIGHT_SURGERY` it asks for.

    Raises:
        InputError: see `load_weights`.
    """
    file = read_weights(cfg.MODEL.WEIGHT)
    unmet = unmet_conventions(cfg, file)
    if unmet:
        get_logger(__name__).warning("%s was trained with %s: consider writing it", file.source, _written(unmet))
    name = cfg.MODEL.WEIGHT_SURGERY
    if not name:
        return load_weights(model, file)
    surgery = partial(
        SURGERIES[name],
        num_classes=num_classes(cfg, model.class_names),
        num_anchors=model.rpn.anchor_generator.per_cell if cfg.MODEL.RPN_ONLY else 1,
    )
    return load_weights(model, file, surgery=surgery)


def unmet_conventions(cfg: CfgNode, file: WeightFile) -> dict[str, Any]:
    """The keys, with the values that the weights were made for, in which `cfg` differs from them."""
    return {key: value for key, value in file.conventions.items() if reduce(_child, key.split("."), cfg) != value}


def follow_conventions(cfg: CfgNode, file: WeightFile) -> None:
    """Set what the weights were made for in `cfg` and say so in the log.

    Raises:
        InputError: the file names a key that does not exist or a value that it cannot have.
    """
    unmet = unmet_conventions(cfg, file)
    if not unmet:
        return
    get_logger(__name__).warning("%s goes with %s: set so for this run", file.source, _written(unmet))
    was_frozen = cfg.is_frozen()
    cfg.defrost()
    cfg.merge_from_list([item for pair in unmet.items() for item in pair])
    if was_frozen:
        cfg.freeze()


def _child(node: Any, name: str) -> Any:
    return node.get(name) if isinstance(node, CfgNode) else None


def _written(conventions: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in conventions.items())
