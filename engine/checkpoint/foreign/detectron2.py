"""State dicts of detectron2 (`.pth`, and `.pkl` of its model zoo).

backbone.bottom_up.res3.0.conv2.norm.weight -> backbone.body.layer2.0.bn2.weight
backbone.fpn_lateral3.weight                -> backbone.fpn.fpn_inner2.weight
head.cls_subnet.0.weight                    -> rpn.head.cls_tower.0.weight
roi_heads.box_head.0.fc1.weight             -> roi_heads.box.0.feature_extractor.fc6.weight

The background is the last class, as in our models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from engine.checkpoint.foreign.rename import Rule, regroup_anchors, rename, usual_norm_eps, with_frozen_norm_eps

FROZEN_EPS = 1e-5
"""Added by detectron2 to the variances of frozen batch norm; ours adds nothing."""
NUM_RATIOS = 3
"""Aspect ratios of RetinaNet's anchors, which detectron2 orders by size and we order by ratio."""

norm_eps = usual_norm_eps
SIGNATURE = (r"backbone\.bottom_up\.",)
_LEVEL = re.compile(r"(?<=^backbone\.)(bottom_up\.res|fpn_lateral|fpn_output)(\d)")
_BLOCK = r"backbone\.bottom_up\.res(\d\.\d+)\."
_BOX_HEAD = r"roi_heads\.box_head\.((?:\d+\.)?)"


def _convolution(match: re.Match[str], is_norm: bool) -> str:
    """A layer of the box head with group norm, which has its ReLU inside; ours are three layers."""
    return f"roi_heads.box.{match[1]}feature_extractor.xconvs.{3 * (int(match[2]) - 1) + is_norm}."


# For names whose levels are counted as ours.
_RULES: list[Rule] = [
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.", "backbone.body.stem.bn1."),
    (r"backbone\.bottom_up\.stem\.", "backbone.body.stem."),
    (rf"{_BLOCK}shortcut\.norm\.", r"backbone.body.layer\1.downsample.1."),
    (rf"{_BLOCK}shortcut\.", r"backbone.body.layer\1.downsample.0."),
    (rf"{_BLOCK}conv2_offset\.", r"backbone.body.layer\1.conv2.offset."),
    (rf"{_BLOCK}conv(\d)\.norm\.", r"backbone.body.layer\1.bn\2."),
    (_BLOCK, r"backbone.body.layer\1."),
    (r"backbone\.fpn_lateral(\d)\.norm\.", r"backbone.fpn.fpn_inner\1.1."),
    (r"backbone\.fpn_output(\d)\.norm\.", r"backbone.fpn.fpn_layer\1.1."),
    (r"backbone\.fpn_lateral(\d)\.", r"backbone.fpn.fpn_inner\1."),
    (r"backbone\.fpn_output(\d)\.", r"backbone.fpn.fpn_layer\1."),
    (r"backbone\.top_block\.", "backbone.fpn.top_blocks."),
    # RetinaNet
    (r"head\.cls_subnet\.", "rpn.head.cls_tower."),
    (r"head\.bbox_subnet\.", "rpn.head.bbox_tower."),
    (r"head\.cls_score\.", "rpn.head.cls_logits."),
    (r"head\.bbox_pred\.", "rpn.head.bbox_pred."),
    # Faster and Cascade R-CNN
    (r"proposal_generator\.rpn_head\.conv\.", "rpn.head.conv."),
    (r"proposal_generator\.rpn_head\.objectness_logits\.", "rpn.head.cls_logits."),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.", "rpn.head.bbox_pred."),
    (rf"{_BOX_HEAD}conv(\d)\.norm\.", lambda match: _convolution(match, is_norm=True)),
    (rf"{_BOX_HEAD}conv(\d)\.", lambda match: _convolution(match, is_norm=False)),
    (rf"{_BOX_HEAD}fc1\.", r"roi_heads.box.\1feature_extractor.fc6."),
    (rf"{_BOX_HEAD}fc2\.", r"roi_heads.box.\1feature_extractor.fc7."),
    (r"roi_heads\.box_predictor\.((?:\d+\.)?)", r"roi_heads.box.\1predictor."),
]
_NOT_WEIGHTS = re.compile(r"pixel_(mean|std)|(.*\.)?anchor_generator\..*")


def our_name(name: str) -> str:
    """Our name for a parameter.

    Example:
        >>> our_name("backbone.bottom_up.res3.0.conv2.norm.weight")
        'backbone.body.layer2.0.bn2.weight'
    """
    return rename(_LEVEL.sub(lambda match: f"{match[1]}{int(match[2]) - 1}", name), _RULES)


def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names, with the epsilon added to variances and RetinaNet's anchors in our order."""
    is_retinanet = any(name.startswith("head.cls_subnet.") for name in tensors)
    named = {our_name(name): tensor for name, tensor in tensors.items() if not _NOT_WEIGHTS.fullmatch(name)}
    named = with_frozen_norm_eps(named, FROZEN_EPS)
    return regroup_anchors(named, NUM_RATIOS) if is_retinanet else named


def conventions(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration keys and values with which these translated tensors give the same results."""
    # A grouped convolution has fewer input channels per filter than filters.
    conv = tensors["backbone.body.layer1.0.conv2.weight"]
    is_resnext = conv.shape[1] < len(conv)
    keys: dict[str, Any] = {
        "MODEL.PIXEL_CONVENTION": "continuous",
        "MODEL.ANCHOR_CONVENTION": "exact",
        "MODEL.DELTA_LIMIT": "upper",
        "MODEL.RESNETS.STRIDE_IN_1X1": not is_resnext,
        "INPUT.TO_BGR255": True,
        "INPUT.PIXEL_MEAN": (103.53, 116.28, 123.675),
        "INPUT.PIXEL_STD": (57.375, 57.12, 58.395) if is_resnext else (1.0, 1.0, 1.0),
    }
    if "rpn.head.cls_tower.0.weight" in tensors:
        keys["MODEL.RETINANET.USE_C5"] = True
        keys["MODEL.RETINANET.DELTA_WEIGHTS"] = (1.0, 1.0, 1.0, 1.0)
    if "rpn.head.conv.weight" in tensors:
        keys |= {
            "MODEL.RPN.STRADDLE_THRESH": -1,
            "MODEL.RPN.BBOX_LOSS": "l1",
            "MODEL.RPN.COUNT_SAMPLED": False,
            "MODEL.RPN.LOW_QUALITY_IOU": 0.0,
            "MODEL.RPN.LOW_QUALITY_OWN": False,
            "MODEL.ROI_BOX_HEAD.POOLER_ALIGNED": True,
            "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
            "MODEL.ROI_BOX_HEAD.BBOX_LOSS": "l1",
        }
    num_stages = sum(name.endswith("bbox_pred.weight") and ".box." in name for name in tensors)
    if num_stages > 1:
        keys |= {
            "MODEL.ROI_BOX_CASCADE_HEAD.LOSS_WEIGHTS": (1.0,) * num_stages,
            "MODEL.ROI_BOX_CASCADE_HEAD.SCORE_MEAN": "probabilities",
            "MODEL.ROI_BOX_CASCADE_HEAD.RESAMPLE": False,
            "MODEL.ROI_BOX_CASCADE_HEAD.FEATURE_GRADIENT": 1 / num_stages,
        }
    return keys
