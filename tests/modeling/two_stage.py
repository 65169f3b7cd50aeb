"""What the tests of two-stage detectors share: small models of other projects with their recorded weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.assembly.model import build_model
from engine.checkpoint import foreign
from engine.config import CfgNode, get_cfg
from engine.modeling.detector import GeneralizedRCNN
from engine.structures import Detections, Targets

CONFIGS = Path("configs")


def small_config(path: str, num_classes: int = 5, **settings: Any) -> CfgNode:
    """The configuration of a file, narrowed to R-18 with 64 channels, on the CPU."""
    cfg = get_cfg()
    cfg.merge_from_file(CONFIGS / path)
    body = cfg.MODEL.BACKBONE.CONV_BODY.replace("R-50", "R-18")
    pairs = {
        "MODEL.DEVICE": "cpu",
        "MODEL.WEIGHT": "",
        "MODEL.CHANNELS_LAST": False,  # gradients of these models change by 1 % when inputs do by 2e-6
        "MODEL.BACKBONE.CONV_BODY": body,
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": 64,
        "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": 0,
        "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": 64,
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": num_classes + 1,
        "MODEL.ATSS.NUM_CLASSES": num_classes + 1,
        "MODEL.DENSE.NUM_CLASSES": num_classes + 1,
        **settings,
    }
    cfg.merge_from_list([word for pair in pairs.items() for word in pair])
    return cfg


def converted_model(cfg: CfgNode, state_dict: dict[str, Tensor]) -> GeneralizedRCNN:
    """The model of `cfg` after the conventions of a foreign state dict, with its weights; every name must match."""
    tensors, name = foreign.translate({key: value.float() for key, value in state_dict.items()})
    conventions = foreign.conventions(tensors, name)
    cfg.merge_from_list([word for pair in conventions.items() for word in pair])
    cfg.freeze()
    model = build_model(cfg)
    ours = model.state_dict()
    if not any(key.endswith("num_batches_tracked") for key in tensors):  # frozen norms count no batches
        tensors |= {key: value for key, value in ours.items() if key.endswith("num_batches_tracked")}
    model.load_state_dict(tensors, strict=True)
    return model


def targets_of(boxes: Tensor, labels: Tensor, size: tuple[int, int], image_id: int = 0) -> Targets:
    return Targets(boxes, labels, torch.zeros(len(labels), dtype=torch.bool), image_id, size)


def freeze_statistics(model: torch.nn.Module) -> torch.nn.Module:
    """Training mode but for batch norms, which learn their parameters and keep their statistics (mmdetection)."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


def assert_same_set(
    ours: Detections, boxes: Tensor, scores: Tensor, labels: Tensor, box_atol: float, score_atol: float
) -> None:
    """The same detections in any order: each of theirs has one of ours of its class near it."""
    assert len(ours) == len(boxes)
    free = torch.ones(len(ours), dtype=torch.bool)
    for box, score, label in zip(boxes, scores, labels, strict=True):
        distance = (ours.boxes - box).abs().amax(dim=1) + 1e3 * (ours.scores - score).abs()
        distance[(ours.labels != label) | ~free] = torch.inf
        best = int(distance.argmin())
        assert free[best]
        free[best] = False
        assert (ours.boxes[best] - box).abs().max() < box_atol
        assert (ours.scores[best] - score).abs() < score_atol


def close_as_sets(ours: Sequence[float] | Tensor, theirs: Tensor, atol: float) -> None:
    """The same rows, sorted by their first columns."""
    ours, theirs = torch.as_tensor(ours), torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    distance = torch.cdist(theirs.double(), ours.double(), p=torch.inf)
    assert distance.min(dim=1).values.max() < atol
    assert distance.min(dim=0).values.max() < atol
