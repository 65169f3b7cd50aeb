"""cfg -> a model with its initial weights."""

from __future__ import annotations

from functools import partial

from torch import nn
from yacs.config import CfgNode

from engine.checkpoint.report import LoadReport
from engine.checkpoint.weights import SURGERIES, load_weights
from engine.modeling.build import num_classes


def load_initial_weights(cfg: CfgNode, model: nn.Module) -> LoadReport:
    """Fill `model` from `MODEL.WEIGHT`, after the `MODEL.WEIGHT_SURGERY` it asks for.

    Raises:
        InputError: see `load_weights`.
    """
    name = cfg.MODEL.WEIGHT_SURGERY
    if not name:
        return load_weights(model, cfg.MODEL.WEIGHT)
    surgery = partial(
        SURGERIES[name],
        num_classes=num_classes(cfg, model.class_names),
        num_anchors=model.rpn.anchor_generator.per_cell if cfg.MODEL.RPN_ONLY else 1,
    )
    return load_weights(model, cfg.MODEL.WEIGHT, surgery=surgery)
