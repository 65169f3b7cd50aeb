"""cfg -> model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from yacs.config import CfgNode

from engine.errors import InputError
from engine.log import get_logger
from engine.modeling.anchors import AnchorGenerator
from engine.modeling.assign import ASSIGNERS
from engine.modeling.atss import ATSS, ATSSHead
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.fpn import FPN, Backbone, LevelP6Pool, LevelsP6P7
from engine.modeling.resnet import BLOCKS_PER_STAGE, ResNet
from engine.structures import boxes as box_ops

NORM_OF_FUNC = {"FixedBatchNorm": "FrozenBN", "BatchNorm": "BN", "GN": "GN"}
"""What the reference's STEM_FUNC / TRANS_FUNC names end in, and our norm."""


def build_model(cfg: CfgNode, class_names: Sequence[str] = ()) -> GeneralizedRCNN:
    """The model that `cfg` describes, on its device, with random weights.

    Args:
        cfg: a configuration; `MODEL.WEIGHT` is not read here, see `load_weights`.
        class_names: names of the foreground classes. Needed where NUM_CLASSES is 0, since they then give the count.

    Raises:
        InputError: a body, a rule or a number of classes that cannot be built.
    """
    backbone = build_backbone(cfg)
    rpn = build_atss(cfg, backbone, num_classes(cfg, class_names))
    model = GeneralizedRCNN(backbone, rpn, cfg.DATALOADER.SIZE_DIVISIBILITY, class_names)
    if cfg.MODEL.USE_SYNCBN:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.to(build_device(cfg))
    return model.to(memory_format=torch.channels_last) if cfg.MODEL.CHANNELS_LAST else model


def build_device(cfg: CfgNode) -> torch.device:
    """`MODEL.DEVICE`, or the CPU with a warning where there is no GPU."""
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type == "cuda" and not torch.cuda.is_available():
        get_logger(__name__).warning("MODEL.DEVICE is %s but no GPU is usable here: using the CPU", device)
        return torch.device("cpu")
    return device


def pixel_of(cfg: CfgNode) -> float:
    """Extent of the last pixel, see `structures.boxes`."""
    return box_ops.INCLUSIVE if cfg.MODEL.PIXEL_CONVENTION == "inclusive" else box_ops.CONTINUOUS


def num_classes(cfg: CfgNode, class_names: Sequence[str] = ()) -> int:
    """K, the number of foreground classes.

    Raises:
        InputError: the configuration and the class names disagree, or neither knows.
    """
    configured = cfg.MODEL.ATSS.NUM_CLASSES
    if not configured and not class_names:
        raise InputError("MODEL.ATSS.NUM_CLASSES is 0, but neither a data set nor a checkpoint names the classes")
    if configured and class_names and configured - 1 != len(class_names):
        raise InputError(
            f"MODEL.ATSS.NUM_CLASSES is {configured} (background included), but the data set has {len(class_names)} "
            f"classes: set it to {len(class_names) + 1}, or to 0 to take the data set's"
        )
    return configured - 1 if configured else len(class_names)


def build_backbone(cfg: CfgNode) -> Backbone:
    """The body and pyramid of `MODEL.BACKBONE.CONV_BODY`, such as R-50-FPN-RETINANET."""
    depth, retinanet = _parse_conv_body(cfg.MODEL.BACKBONE.CONV_BODY)
    resnets = cfg.MODEL.RESNETS
    body = ResNet(
        depth,
        stem_channels=resnets.STEM_OUT_CHANNELS,
        res2_channels=resnets.RES2_OUT_CHANNELS,
        groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        norm_name=resnets.NORM or _norm_of(resnets.TRANS_FUNC),
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        res5_dilation=resnets.RES5_DILATION,
        deform_stages=resnets.STAGE_WITH_DCN,
        modulated=resnets.WITH_MODULATED_DCN,
        deformable_groups=resnets.DEFORMABLE_GROUPS,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT,
    )
    out_channels = resnets.BACKBONE_OUT_CHANNELS
    if retinanet:
        in_channels = [0, *body.out_channels[1:]]
        top = LevelsP6P7(body.out_channels[-1], out_channels, cfg.MODEL.RETINANET.USE_C5)
    else:
        in_channels, top = body.out_channels, LevelP6Pool()
    fpn = FPN(in_channels, out_channels, top, cfg.MODEL.FPN.USE_GN, cfg.MODEL.FPN.USE_RELU)
    return Backbone(body, fpn)


def _parse_conv_body(name: str) -> tuple[int, bool]:
    """Depth, and whether the pyramid is RetinaNet's (P3..P7) instead of Faster R-CNN's (P2..P6)."""
    match = re.fullmatch(r"R-(\d+)-FPN(-RETINANET)?", name)
    if not match or int(match[1]) not in BLOCKS_PER_STAGE:
        depths = ", ".join(map(str, BLOCKS_PER_STAGE))
        raise InputError(
            f"MODEL.BACKBONE.CONV_BODY {name} cannot be built: write R-<depth>-FPN-RETINANET or R-<depth>-FPN "
            f"with a depth of {depths}"
        )
    return int(match[1]), bool(match[2])


def _norm_of(trans_func: str) -> str:
    for ending, name in NORM_OF_FUNC.items():
        if trans_func.endswith(f"With{ending}"):
            return name
    raise InputError(f"MODEL.RESNETS.TRANS_FUNC {trans_func} is not known: set MODEL.RESNETS.NORM instead")


def build_atss(cfg: CfgNode, backbone: Backbone, num_foreground: int) -> ATSS:
    """The ATSS dense stage of `MODEL.ATSS`."""
    atss, pixel = cfg.MODEL.ATSS, pixel_of(cfg)
    if len(atss.ANCHOR_STRIDES) != backbone.fpn.num_levels:
        raise InputError(
            f"MODEL.ATSS.ANCHOR_STRIDES has {len(atss.ANCHOR_STRIDES)} entries, but {cfg.MODEL.BACKBONE.CONV_BODY} "
            f"gives {backbone.fpn.num_levels} levels"
        )
    octave_scales = [atss.OCTAVE ** (i / atss.SCALES_PER_OCTAVE) for i in range(atss.SCALES_PER_OCTAVE)]
    anchor_generator = AnchorGenerator(
        [[size * scale for scale in octave_scales] for size in atss.ANCHOR_SIZES],
        atss.ASPECT_RATIOS,
        atss.ANCHOR_STRIDES,
        inclusive=pixel == box_ops.INCLUSIVE,
    )
    distances = atss.REGRESSION_TYPE == "POINT"
    head = ATSSHead(
        backbone.fpn.out_channels,
        num_foreground,
        anchor_generator.per_cell,
        backbone.fpn.num_levels,
        atss.NUM_CONVS,
        atss.USE_DCN_IN_TOWER,
        atss.PRIOR_PROB,
        distances,
    )
    return ATSS(
        head,
        anchor_generator,
        build_assigner(cfg, pixel / 2),
        distance_unit=atss.ANCHOR_SIZES[0] / atss.ANCHOR_STRIDES[0] if distances else None,
        pixel=pixel,
        focal_alpha=atss.LOSS_ALPHA,
        focal_gamma=atss.LOSS_GAMMA,
        reg_loss_weight=atss.REG_LOSS_WEIGHT,
        score_thresh=atss.INFERENCE_TH,
        pre_nms_top_n=atss.PRE_NMS_TOP_N,
        nms_thresh=atss.NMS_TH,
        max_detections=cfg.TEST.DETECTIONS_PER_IMG,
    )


def build_assigner(cfg: CfgNode, inset: float) -> partial:
    """The rule of `MODEL.ATSS.POSITIVE_TYPE` with its parameters bound."""
    atss = cfg.MODEL.ATSS
    name = atss.POSITIVE_TYPE.lower()
    parameters = {
        "atss": {"topk": atss.TOPK},
        "topk": {"topk": atss.TOPK},
        "iou": {"fg_iou_thresh": atss.FG_IOU_THRESHOLD, "bg_iou_thresh": atss.BG_IOU_THRESHOLD},
    }
    return partial(ASSIGNERS.get(name), inset=inset, **parameters.get(name, {}))
