"""State dicts of torchvision's detectors: RetinaNet, FCOS and Faster R-CNN on ResNet FPN bodies.

backbone.body.layer2.0.bn2.weight                -> the same
backbone.fpn.inner_blocks.0.0.weight             -> backbone.fpn.fpn_inner2.weight (the first level of the pyramid)
head.classification_head.conv.0.0.weight         -> rpn.head.cls_tower.0.weight

Class 0 is the background, also in sigmoid heads, where it is never learned. COCO models have 91
classes, by category id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint.foreign.rename import (
    IMAGENET_RGB,
    Rule,
    rename,
    usual_norm_eps,
    with_frozen_norm_eps,
    with_tower_biases,
)

SIGNATURE = (r"backbone\.fpn\.(inner|layer)_blocks\.",)
norm_eps = usual_norm_eps
FROZEN_EPS = 1e-5
"""Of FCOS's frozen batch norms. The published RetinaNet and Faster R-CNN use 0."""
NUM_LEVELS = 5
NUM_COCO_IDS = 91
UNUSED_COCO_IDS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)

_STEM = [(r"backbone\.body\.(conv1|bn1)\.", r"backbone.body.stem.\1.")]
_TOP = [(r"backbone\.fpn\.extra_blocks\.", "backbone.fpn.top_blocks.")]
_FASTER = [
    (r"rpn\.head\.conv\.0\.0\.", "rpn.head.conv."),
    (r"roi_heads\.box_head\.fc([67])\.", r"roi_heads.box.feature_extractor.fc\1."),
    (r"roi_heads\.box_predictor\.", "roi_heads.box.predictor."),
]


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names; FCOS gets level scales of 1, which torchvision does not have."""
    kind = _kind(tensors)
    first = 1 if kind == "faster" else 2  # torchvision counts from the first level in use
    rules: list[Rule] = [*_STEM, *_fpn_rules(first), *_TOP, *(_FASTER if kind == "faster" else _dense_rules(tensors))]
    named = _foreground({rename(name, rules): tensor for name, tensor in tensors.items()}, kind)
    if kind == "fcos":
        named |= {f"rpn.head.scales.{level}.scale": torch.ones(1) for level in range(NUM_LEVELS)}
        return with_frozen_norm_eps(named, FROZEN_EPS)
    return with_tower_biases(named)


def conventions(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration keys and values with which these translated tensors give the same results."""
    keys: dict[str, Any] = {
        "MODEL.PIXEL_CONVENTION": "continuous",
        "MODEL.ANCHOR_CONVENTION": "torchvision",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        **IMAGENET_RGB,
    }
    top = tensors.get("backbone.fpn.top_blocks.p6.weight")
    if top is not None:
        keys["MODEL.RETINANET.USE_C5"] = top.shape[0] != top.shape[1]
    if "rpn.head.centerness.weight" in tensors:
        keys["MODEL.FCOS.NORM_REG_TARGETS"] = True
        keys["MODEL.FCOS.CENTERNESS_ON_REG"] = True
        keys["MODEL.FCOS.THRESH_JOINT_SCORE"] = True
    elif top is None:
        keys["MODEL.ROI_BOX_HEAD.POOLER_ALIGNED"] = False
        keys["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"] = 2
    else:
        keys["MODEL.RETINANET.DELTA_WEIGHTS"] = (1.0, 1.0, 1.0, 1.0)
        keys["MODEL.RETINANET.USE_GN"] = "rpn.head.cls_tower.1.weight" in tensors
    return keys


def _kind(names: Iterable[str]) -> str:
    names = set(names)
    if "head.regression_head.bbox_ctrness.weight" in names:
        return "fcos"
    return "retinanet" if "head.classification_head.cls_logits.weight" in names else "faster"


def _foreground(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Heads without the rows of unused COCO ids and of class 0, the background (moved to the end of a softmax head)."""

    def classes(count: int) -> Tensor:
        unused = UNUSED_COCO_IDS if count == NUM_COCO_IDS else (0,)
        return torch.tensor([label for label in range(count) if label not in unused], dtype=torch.int64)

    changed = {}
    if kind == "faster":
        labels = classes(len(tensors["roi_heads.box.predictor.cls_score.bias"]))
        for name in ("weight", "bias"):
            scores = tensors[f"roi_heads.box.predictor.cls_score.{name}"]
            deltas = tensors[f"roi_heads.box.predictor.bbox_pred.{name}"]
            changed[f"roi_heads.box.predictor.cls_score.{name}"] = torch.cat([scores[labels], scores[:1]])
            changed[f"roi_heads.box.predictor.bbox_pred.{name}"] = deltas.unflatten(0, (-1, 4))[labels].flatten(0, 1)
        return {**tensors, **changed}
    num_anchors = len(tensors["rpn.head.bbox_pred.bias"]) // 4
    labels = classes(len(tensors["rpn.head.cls_logits.bias"]) // num_anchors)
    for name in ("rpn.head.cls_logits.weight", "rpn.head.cls_logits.bias"):
        changed[name] = tensors[name].unflatten(0, (num_anchors, -1))[:, labels].flatten(0, 1)
    return {**tensors, **changed}


def _fpn_rules(first: int) -> list[Rule]:
    """`inner_blocks.0.0.` (in files before 2022 `inner_blocks.0.`) is the first level, `inner_blocks.0.1.` its norm."""
    rules: list[Rule] = []
    for theirs in range(4):
        for block, ours in (("inner_blocks", "fpn_inner"), ("layer_blocks", "fpn_layer")):
            old, new = rf"backbone\.fpn\.{block}\.{theirs}\.", f"backbone.fpn.{ours}{theirs + first}."
            rules += [(old + r"0\.(?=weight|bias)", new), (old, new)]
    return rules


def _dense_rules(names: Iterable[str]) -> list[Rule]:
    """FCOS and RetinaNet before 2022 count the layers of towers, later RetinaNets blocks of conv, norm and ReLU."""
    in_blocks = any(".conv.0.0." in name for name in names)
    step = 3 if any(".conv.0.1." in name for name in names) else 2
    rules: list[Rule] = []
    for head, tower in (("classification_head", "cls_tower"), ("regression_head", "bbox_tower")):

        def place(match: re.Match[str], tower: str = tower) -> str:
            return f"rpn.head.{tower}.{int(match[1]) * step + int(match[2])}."

        if in_blocks:
            rules.append((rf"head\.{head}\.conv\.(\d+)\.(\d+)\.", place))
        rules.append((rf"head\.{head}\.conv\.", f"rpn.head.{tower}."))
    return [
        *rules,
        (r"head\.classification_head\.cls_logits\.", "rpn.head.cls_logits."),
        (r"head\.regression_head\.bbox_reg\.", "rpn.head.bbox_pred."),
        (r"head\.regression_head\.bbox_ctrness\.", "rpn.head.centerness."),
    ]
