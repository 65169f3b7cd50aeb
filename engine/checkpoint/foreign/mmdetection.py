"""State dicts of mmdetection 2 and 3: Cascade and Faster R-CNN, ATSS, RetinaNet, GFL and VFNet on ResNet FPN bodies.

backbone.layer2.0.conv2.conv_offset.weight  -> backbone.body.layer2.0.conv2.offset.weight
neck.lateral_convs.1.conv.weight            -> backbone.fpn.fpn_inner2.weight (the second level of the pyramid)
neck.downsample_convs.0.conv.weight         -> backbone.fpn.pafpn_down3.weight (of a PAFPN from C3 on)
neck.1.dyhead_blocks.0.scale_attn_module.1. -> backbone.fpn.blocks.0.scale_attention. (the FPN then is neck.0)
rpn_head.rpn_cls.weight                     -> rpn.head.cls_logits.weight
roi_head.bbox_head.0.shared_fcs.1.weight    -> roi_heads.box.0.feature_extractor.fc7.weight
bbox_head.cls_convs.3.gn.weight             -> rpn.head.cls_tower.10.weight

The background is the last class, as in our models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from engine.checkpoint.foreign.rename import IMAGENET_RGB, Rule, rename, usual_norm_eps, with_tower_biases

CASCADE_DEVIATIONS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
"""Of the deltas in its published cascades; others use 1 / 30. Ours are factors, the reciprocals."""
CASCADE_WEIGHTS = tuple(tuple(1 / deviation for deviation in stage) for stage in CASCADE_DEVIATIONS)
norm_eps = usual_norm_eps
SIGNATURE = (r"neck\.(?:0\.)?lateral_convs\.",)
NUM_MAPS = 4
"""Feature maps of the body, C2..C5."""
CONSTANTS = ("bbox_head.integral.project",)
"""Tensors that follow from the shapes of others."""
DYHEAD_BLOCKS = r"neck\.1\.dyhead_blocks\.(\d+)\."
_BOX_HEAD = r"roi_head\.bbox_head\.((?:\d+\.)?)"


def translate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under our names. The scale of a level is a scalar there and has shape (1,) here."""
    rules = _rules(tensors)
    named = {rename(name, rules): tensor for name, tensor in tensors.items() if name not in CONSTANTS}
    named = {name: tensor.reshape(1) if name.endswith(".scale") else tensor for name, tensor in named.items()}
    return with_tower_biases(named)


def class_names(meta: Any) -> list[str] | None:
    """The class names that mmdetection 3 or 2 stored in the `meta` of a checkpoint."""
    if not isinstance(meta, dict):
        return None
    dataset = meta.get("dataset_meta")
    for holder, key in ((dataset, "classes"), (dataset, "CLASSES"), (meta, "CLASSES")):
        names = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(names, str):  # a single class
            names = [names]
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return list(names)
    return None


def conventions(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The configuration keys and values with which these translated tensors give the same results."""
    keys: dict[str, Any] = {
        "MODEL.PIXEL_CONVENTION": "continuous",
        "MODEL.ANCHOR_CONVENTION": "exact",
        "MODEL.DELTA_LIMIT": "both",
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        **IMAGENET_RGB,
    }
    is_top = re.compile(r"backbone\.fpn\.(pyramid\.)?top_blocks\.p6\.(0\.)?weight").fullmatch
    top = next((tensor for name, tensor in tensors.items() if is_top(name)), None)
    if top is not None:
        keys["MODEL.RETINANET.USE_C5"] = top.shape[0] != top.shape[1]
        keys["MODEL.FPN.RELU_BEFORE_P7"] = "rpn.head.first_pred.weight" in tensors  # VFNet
    if "rpn.head.centerness.weight" in tensors:
        keys |= {"MODEL.ATSS.SCORE": "product", "MODEL.ATSS.MIN_POSITIVES": 1}
    elif top is not None and "rpn.head.scales.0.scale" not in tensors:  # GFL has scales, RetinaNet has none
        keys["MODEL.RETINANET.DELTA_WEIGHTS"] = (1.0, 1.0, 1.0, 1.0)
    if "rpn.head.conv.weight" in tensors:
        keys |= {
            "MODEL.RPN.LOW_QUALITY_IOU": 0.3,
            "MODEL.RPN.LOW_QUALITY_OWN": True,
            "MODEL.RPN.COUNT_SAMPLED": True,
            "MODEL.ROI_BOX_HEAD.POOLER_ALIGNED": True,
            "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
        }
    if "roi_heads.box.0.predictor.bbox_pred.weight" in tensors:
        keys["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"] = CASCADE_WEIGHTS
        keys["MODEL.ROI_BOX_CASCADE_HEAD.SCORE_MEAN"] = "logits"
        keys["MODEL.ROI_BOX_CASCADE_HEAD.RESAMPLE"] = True
        keys["MODEL.ROI_BOX_CASCADE_HEAD.FEATURE_GRADIENT"] = 1.0
    return keys


def _rules(names: Iterable[str]) -> list[Rule]:
    names = list(names)
    return [
        (r"backbone\.(conv1|bn1)\.", r"backbone.body.stem.\1."),
        (r"backbone\.(layer\d\.\d+\.conv\d)[._](?:conv_)?offset\.", r"backbone.body.\1.offset."),
        (r"backbone\.(layer\d)\.", r"backbone.body.\1."),
        *_fpn_rules(names),
        *_dyhead_rules(),
        (r"rpn_head\.rpn_conv\.", "rpn.head.conv."),
        (r"rpn_head\.rpn_cls\.", "rpn.head.cls_logits."),
        (r"rpn_head\.rpn_reg\.", "rpn.head.bbox_pred."),
        (rf"{_BOX_HEAD}shared_fcs\.0\.", r"roi_heads.box.\1feature_extractor.fc6."),
        (rf"{_BOX_HEAD}shared_fcs\.1\.", r"roi_heads.box.\1feature_extractor.fc7."),
        (rf"{_BOX_HEAD}fc_cls\.", r"roi_heads.box.\1predictor.cls_score."),
        (rf"{_BOX_HEAD}fc_reg\.", r"roi_heads.box.\1predictor.bbox_pred."),
        *_conv_rules(rf"{_BOX_HEAD}shared_convs", r"roi_heads.box.\1feature_extractor.xconvs", names),
        *_conv_rules(r"bbox_head\.()cls_convs", "rpn.head.cls_tower", names),
        *_conv_rules(r"bbox_head\.()reg_convs", "rpn.head.bbox_tower", names),
        (r"bbox_head\.(?:atss|retina)_cls\.", "rpn.head.cls_logits."),
        (r"bbox_head\.(?:atss|retina)_reg\.", "rpn.head.bbox_pred."),
        (r"bbox_head\.atss_centerness\.", "rpn.head.centerness."),
        (r"bbox_head\.scales\.", "rpn.head.scales."),
        *_gfl_rules(),
        *_tood_rules(),
        *_vfnet_rules(),
    ]


def _gfl_rules() -> list[Rule]:
    return [
        (r"bbox_head\.gfl_cls\.", "rpn.head.cls_logits."),
        (r"bbox_head\.gfl_reg\.", "rpn.head.bbox_bins."),
    ]


def _tood_rules() -> list[Rule]:
    return [
        (r"bbox_head\.inter_convs\.(\d+)\.conv\.", r"rpn.head.inter_convs.\1.0."),
        (r"bbox_head\.inter_convs\.(\d+)\.gn\.", r"rpn.head.inter_convs.\1.1."),
        (r"bbox_head\.(cls|reg)_decomp\.layer_attention\.", r"rpn.head.\1_decomp.layer_attention."),
        (r"bbox_head\.(cls|reg)_decomp\.reduction_conv\.conv\.", r"rpn.head.\1_decomp.reduction."),
        (r"bbox_head\.(cls|reg)_decomp\.reduction_conv\.gn\.", r"rpn.head.\1_decomp.norm."),
        (r"bbox_head\.tood_cls\.", "rpn.head.cls_logits."),
        (r"bbox_head\.tood_reg\.", "rpn.head.bbox_pred."),
        (r"bbox_head\.cls_prob_module\.", "rpn.head.cls_prob."),
        (r"bbox_head\.reg_offset_module\.", "rpn.head.reg_offset."),
    ]


def _vfnet_rules() -> list[Rule]:
    """The first box, its star, the refined box; the scores have a star of their own."""
    return [
        (r"bbox_head\.vfnet_reg_conv\.conv\.", "rpn.head.first_tower.0."),
        (r"bbox_head\.vfnet_reg_conv\.(?:gn|bn)\.", "rpn.head.first_tower.1."),
        (r"bbox_head\.vfnet_reg\.", "rpn.head.first_pred."),
        (r"bbox_head\.vfnet_reg_refine_dconv\.", "rpn.head.bbox_star."),
        (r"bbox_head\.vfnet_reg_refine\.", "rpn.head.bbox_pred."),
        (r"bbox_head\.scales_refine\.", "rpn.head.scales_refined."),
        (r"bbox_head\.vfnet_cls_dconv\.", "rpn.head.cls_star."),
        (r"bbox_head\.vfnet_cls\.", "rpn.head.cls_logits."),
    ]


def _fpn_rules(names: Sequence[str]) -> list[Rule]:
    """Lateral convolutions are counted from the first level in use; further output convolutions make P6 and P7."""
    theirs = "neck.0" if any(name.startswith("neck.0.") for name in names) else "neck"  # a list, or a single neck
    has_blocks = any(re.match(DYHEAD_BLOCKS, name) for name in names)
    ours = "backbone.fpn.pyramid" if has_blocks else "backbone.fpn"

    def numbers(part: str) -> set[int]:
        matches = (re.match(rf"{re.escape(theirs)}\.{part}\.(\d+)\.", name) for name in names)
        return {int(match[1]) for match in matches if match}

    num_laterals = len(numbers("lateral_convs"))
    rules: list[Rule] = []
    for i in range(num_laterals):
        level = i + NUM_MAPS - num_laterals + 1  # C2 is 1
        rules += _block_rules(f"{theirs}.lateral_convs.{i}", f"{ours}.fpn_inner{level}", names)
        rules += _block_rules(f"{theirs}.fpn_convs.{i}", f"{ours}.fpn_layer{level}", names)
        # The bottom-up path of PAFPN begins with the second level.
        rules += _block_rules(f"{theirs}.downsample_convs.{i}", f"{ours}.pafpn_down{level + 1}", names)
        rules += _block_rules(f"{theirs}.pafpn_convs.{i}", f"{ours}.pafpn_layer{level + 1}", names)
    for i in sorted(i for i in numbers("fpn_convs") if i >= num_laterals):
        rules += _block_rules(f"{theirs}.fpn_convs.{i}", f"{ours}.top_blocks.p{6 + i - num_laterals}", names)
    return rules


def _dyhead_rules() -> list[Rule]:
    block = r"backbone.fpn.blocks.\1."
    return [
        (rf"{DYHEAD_BLOCKS}spatial_conv_(high|mid|low)\.", rf"{block}conv_\2."),
        (rf"{DYHEAD_BLOCKS}spatial_conv_offset\.", rf"{block}offset."),
        (rf"{DYHEAD_BLOCKS}scale_attn_module\.1\.", rf"{block}scale_attention."),
        (rf"{DYHEAD_BLOCKS}task_attn_module\.conv([12])\.conv\.", rf"{block}task_attention.fc\2."),
    ]


def _block_rules(theirs: str, ours: str, names: Sequence[str]) -> list[Rule]:
    """A convolution alone, or with a norm behind it: then both are numbered in ours. (A ReLU alone has no trace.)"""
    start = re.escape(theirs) + r"\."
    has_norm = any(re.match(rf"{start}(gn|bn)\.", name) for name in names)
    return [(rf"{start}conv\.", f"{ours}.{'0.' if has_norm else ''}"), (rf"{start}(?:gn|bn)\.", f"{ours}.1.")]


def _conv_rules(theirs: str, ours: str, names: Sequence[str]) -> list[Rule]:
    """A sequence of blocks of convolution, optional norm and ReLU; each of these is one layer in ours."""
    has_norm = any(re.match(rf"{theirs}\.\d+\.(gn|bn)\.", name) for name in names)

    def place(offset: int) -> Callable[[re.Match[str]], str]:
        return lambda match: f"{match.expand(ours)}.{int(match[2]) * (3 if has_norm else 2) + offset}."

    return [(rf"{theirs}\.(\d+)\.conv\.", place(0)), (rf"{theirs}\.(\d+)\.(?:gn|bn)\.", place(1))]
