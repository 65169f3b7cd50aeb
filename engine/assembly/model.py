"""cfg -> model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import nn
from yacs.config import CfgNode

from engine.assembly.dense import build_dense, build_proposals, dense_name
from engine.assembly.device import build_device
from engine.assembly.two_stage import build_roi_heads
from engine.errors import InputError
from engine.log import get_logger
from engine.modeling.bodies import BODIES
from engine.modeling.bodies.resnet import BLOCKS_PER_STAGE, ResNet
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.necks.fpn import FPN, Backbone, LevelP6Pool, LevelsP6P7
from engine.registry import import_modules, lookup

NORM_OF_FUNC = {"FixedBatchNorm": "FrozenBN", "BatchNorm": "BN", "GN": "GN"}
"""What the reference's STEM_FUNC / TRANS_FUNC names end in, and our norm."""
LEAST_STRIDED_CHANNELS = 16
"""Below it oneDNN corrupts memory, see `_breaks_channels_last`."""


def build_model(cfg: CfgNode, class_names: Sequence[str] = ()) -> GeneralizedRCNN:
    """The model that `cfg` describes, on its device, with random weights.

    Args:
        cfg: a configuration; `MODEL.WEIGHT` is not read here, see `load_weights`.
        class_names: names of the foreground classes. Needed where NUM_CLASSES is 0, since they then give the count.

    Raises:
        InputError: a body, a rule or a number of classes that cannot be built.
    """
    import_modules(cfg.IMPORTS)
    backbone = build_backbone(cfg)
    num_foreground = num_classes(cfg, class_names)
    if cfg.MODEL.RPN_ONLY:
        rpn, roi_heads = build_dense(cfg, backbone, num_foreground), None
    else:
        rpn = build_proposals(cfg, backbone)
        roi_heads = build_roi_heads(cfg, backbone, num_foreground)
    model = GeneralizedRCNN(backbone, rpn, roi_heads, cfg.DATALOADER.SIZE_DIVISIBILITY, class_names)
    device = build_device(cfg)
    if cfg.MODEL.USE_SYNCBN and device.type == "cuda":  # see `warn_without_gpu`
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.to(device)
    if cfg.MODEL.CHANNELS_LAST and not (device.type == "cpu" and _breaks_channels_last(model)):
        model.to(memory_format=torch.channels_last)
    return model


def _breaks_channels_last(model: nn.Module) -> bool:
    """Whether torch would write past its memory when it trains `model` in that layout on a CPU; the log then says why.

    See docs/decisions/channels_last.md.
    """
    for name, module in model.named_modules():
        is_strided = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride != (1, 1)
        if is_strided and module.weight.shape[1] < LEAST_STRIDED_CHANNELS:
            get_logger(__name__).info(  # which other processes keep to themselves
                "MODEL.CHANNELS_LAST is off: torch on a CPU needs %d input channels or more for the strided 1x1"
                " convolution %s, which has %d",
                LEAST_STRIDED_CHANNELS,
                name,
                module.weight.shape[1],
            )
            return True
    return False


def class_count(cfg: CfgNode) -> tuple[str, int]:
    """The key that counts the classes of the last stage, background included, and its value (0: the data tells)."""
    if not cfg.MODEL.RPN_ONLY:
        return "MODEL.ROI_BOX_HEAD.NUM_CLASSES", cfg.MODEL.ROI_BOX_HEAD.NUM_CLASSES
    counts = {
        "ATSS": ("MODEL.ATSS.NUM_CLASSES", cfg.MODEL.ATSS.NUM_CLASSES),
        "RETINANET": ("MODEL.RETINANET.NUM_CLASSES", cfg.MODEL.RETINANET.NUM_CLASSES),
        "FCOS": ("MODEL.FCOS.NUM_CLASSES", cfg.MODEL.FCOS.NUM_CLASSES),
    }
    return counts.get(dense_name(cfg), ("MODEL.DENSE.NUM_CLASSES", cfg.MODEL.DENSE.NUM_CLASSES))


def num_classes(cfg: CfgNode, class_names: Sequence[str] = ()) -> int:
    """K, the number of foreground classes.

    Raises:
        InputError: the configuration and the class names disagree, or neither knows.
    """
    key, configured = class_count(cfg)
    if not configured and not class_names:
        raise InputError(f"{key} is 0, but neither a data set nor a checkpoint names the classes")
    if configured and class_names and configured - 1 != len(class_names):
        raise InputError(
            f"{key} is {configured} (background included), but the data set has {len(class_names)} "
            f"classes: set it to {len(class_names) + 1}, or to 0 to take the data set's"
        )
    return configured - 1 if configured else len(class_names)


def build_backbone(cfg: CfgNode) -> Backbone:
    """The body and pyramid of `MODEL.BACKBONE.CONV_BODY`, such as R-50-FPN-RETINANET."""
    body_name, retinanet = _parse_conv_body(cfg.MODEL.BACKBONE.CONV_BODY)
    body = build_body(cfg, body_name)
    out_channels = cfg.MODEL.RESNETS.BACKBONE_OUT_CHANNELS
    if retinanet:
        in_channels = [0, *body.out_channels[1:]]
        top = LevelsP6P7(body.out_channels[-1], out_channels, cfg.MODEL.RETINANET.USE_C5, cfg.MODEL.FPN.RELU_BEFORE_P7)
    else:
        in_channels, top = body.out_channels, LevelP6Pool()
    fpn = FPN(in_channels, out_channels, top, cfg.MODEL.FPN.USE_GN, cfg.MODEL.FPN.USE_RELU)
    return Backbone(body, fpn)


def build_body(cfg: CfgNode, name: str) -> nn.Module:
    """R-18 to R-152 by the keys of `MODEL.RESNETS`, any other name from `BODIES`."""
    resnets, freeze_at = cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.FREEZE_CONV_BODY_AT
    norm_name = resnets.NORM or _norm_of(resnets.TRANS_FUNC)
    resnet = re.fullmatch(r"R-(\d+)", name)
    if not resnet:
        return lookup(BODIES, name, "MODEL.BACKBONE.CONV_BODY")(norm_name=norm_name, freeze_at=freeze_at)
    return ResNet(
        int(resnet[1]),
        stem_channels=resnets.STEM_OUT_CHANNELS,
        res2_channels=resnets.RES2_OUT_CHANNELS,
        groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        norm_name=norm_name,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        res5_dilation=resnets.RES5_DILATION,
        deform_stages=resnets.STAGE_WITH_DCN,
        modulated=resnets.WITH_MODULATED_DCN,
        deformable_groups=resnets.DEFORMABLE_GROUPS,
        freeze_at=freeze_at,
    )


def _parse_conv_body(name: str) -> tuple[str, bool]:
    """Name of the body, and whether the pyramid is RetinaNet's (P3..P7) instead of Faster R-CNN's (P2..P6)."""
    match = re.fullmatch(r"(.+)-FPN(-RETINANET)?", name)
    depth = re.match(r"R-(\d+)", name)
    if not match or (depth and int(depth[1]) not in BLOCKS_PER_STAGE):
        depths = ", ".join(map(str, BLOCKS_PER_STAGE))
        raise InputError(
            f"MODEL.BACKBONE.CONV_BODY {name} cannot be built: write R-<depth>-FPN-RETINANET or R-<depth>-FPN "
            f"with a depth of {depths}, or the name of a body of your own in place of R-<depth>"
        )
    return match[1], bool(match[2])


def _norm_of(trans_func: str) -> str:
    for ending, name in NORM_OF_FUNC.items():
        if trans_func.endswith(f"With{ending}"):
            return name
    raise InputError(f"MODEL.RESNETS.TRANS_FUNC {trans_func} is not known: set MODEL.RESNETS.NORM instead")
