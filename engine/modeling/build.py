"""cfg -> model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import nn
from yacs.config import CfgNode

from engine import distributed
from engine.errors import InputError
from engine.layers.iou_losses import IOU_LOSSES
from engine.log import get_logger
from engine.modeling.anchors import AnchorGenerator, octave_sizes
from engine.modeling.assign import ASSIGNERS, max_iou, ssc
from engine.modeling.atss import ATSS, ATSSHead, ATSSProposals
from engine.modeling.bodies import BODIES
from engine.modeling.dense import DenseStage
from engine.modeling.detector import GeneralizedRCNN
from engine.modeling.fcos import FCOS, FCOSHead
from engine.modeling.fpn import FPN, Backbone, LevelP6Pool, LevelsP6P7
from engine.modeling.resnet import BLOCKS_PER_STAGE, ResNet
from engine.modeling.retinanet import NORMALIZERS, RetinaNet, RetinaNetHead
from engine.modeling.rpn import RPN
from engine.modeling.two_stage.build import build_roi_heads, build_rpn, min_log_ratio_of
from engine.registry import import_modules, lookup
from engine.structures import boxes as box_ops

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
        roi_heads = build_roi_heads(cfg, backbone.fpn, num_foreground, pixel_of(cfg))
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


def build_device(cfg: CfgNode) -> torch.device:
    """`MODEL.DEVICE`, or the CPU where there is no GPU, see `warn_without_gpu`.

    Each of several processes has the GPU of its own number, whatever `cuda:N` says.

    Raises:
        InputError: this machine has no GPU of that number.
    """
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if distributed.is_launched():
        return torch.device("cuda", distributed.local_rank())
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise InputError(
            f"MODEL.DEVICE is {device}, but this machine has {count} GPU(s): write cuda:{count - 1} or less"
        )
    return device


def warn_without_gpu(cfg: CfgNode) -> None:
    """Say what is not as configured because the model is on a CPU; called once a run."""
    if build_device(cfg).type != "cpu":
        return
    logger = get_logger(__name__)
    if cfg.MODEL.DEVICE != "cpu":
        logger.warning("MODEL.DEVICE is %s but no GPU is usable here: using the CPU", cfg.MODEL.DEVICE)
    if cfg.MODEL.USE_SYNCBN and distributed.world_size() > 1:
        logger.warning("MODEL.USE_SYNCBN is off: torch has it on GPUs only, so batch norm sees one process's images")


def pixel_of(cfg: CfgNode) -> float:
    """Extent of the last pixel, see `structures.boxes`."""
    return box_ops.INCLUSIVE if cfg.MODEL.PIXEL_CONVENTION == "inclusive" else box_ops.CONTINUOUS


def num_classes(cfg: CfgNode, class_names: Sequence[str] = ()) -> int:
    """K, the number of foreground classes.

    Raises:
        InputError: the configuration and the class names disagree, or neither knows.
    """
    group = dense_group(cfg) if cfg.MODEL.RPN_ONLY else "ROI_BOX_HEAD"
    key, configured = f"MODEL.{group}.NUM_CLASSES", cfg.MODEL[group].NUM_CLASSES
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


def build_dense(cfg: CfgNode, backbone: Backbone, num_foreground: int) -> DenseStage:
    """The dense stage that is on: ATSS, RetinaNet or FCOS."""
    group = dense_group(cfg)
    if group not in DENSE_STAGES:
        raise InputError("no dense stage is on; write MODEL.ATSS_ON: True (or RETINANET_ON, FCOS_ON)")
    return DENSE_STAGES[group](cfg, backbone, num_foreground)


def build_proposals(cfg: CfgNode, backbone: Backbone) -> RPN | ATSSProposals:
    """The first stage of a two-stage detector: `MODEL.RPN`, or `MODEL.ATSS` where it is on."""
    if not cfg.MODEL.ATSS_ON:
        return build_rpn(cfg, backbone.fpn, pixel_of(cfg))
    rpn = cfg.MODEL.RPN
    return build_atss(
        cfg,
        backbone,
        1,
        stage=ATSSProposals,
        score_thresh=0.0,
        nms_thresh=rpn.NMS_THRESH,
        num_train=rpn.FPN_POST_NMS_TOP_N_TRAIN,
        num_test=rpn.FPN_POST_NMS_TOP_N_TEST,
    )


def build_atss(
    cfg: CfgNode, backbone: Backbone, num_foreground: int, stage: type[ATSS] = ATSS, **changed: float
) -> ATSS:
    """The dense stage of `MODEL.ATSS`, with arguments `changed` from what the keys say."""
    atss = cfg.MODEL.ATSS
    anchor_generator = build_anchors(cfg, "ATSS", backbone)
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
    return stage(
        head,
        anchor_generator,
        build_assigner(cfg, pixel_of(cfg) / 2),
        distance_unit=atss.ANCHOR_SIZES[0] / atss.ANCHOR_STRIDES[0] if distances else None,
        reg_loss_weight=atss.REG_LOSS_WEIGHT,
        min_log_ratio=min_log_ratio_of(cfg),
        score_is_product=atss.SCORE == "product",
        **{**_loss_and_selection(cfg, "ATSS"), **changed},
    )


def build_retinanet(cfg: CfgNode, backbone: Backbone, num_foreground: int) -> RetinaNet:
    """The dense stage of `MODEL.RETINANET`."""
    retinanet = cfg.MODEL.RETINANET
    anchor_generator = build_anchors(cfg, "RETINANET", backbone)
    head = RetinaNetHead(
        backbone.fpn.out_channels,
        num_foreground,
        anchor_generator.per_cell,
        retinanet.NUM_CONVS,
        retinanet.PRIOR_PROB,
        "GN" if retinanet.USE_GN else "",
    )
    return RetinaNet(
        head,
        anchor_generator,
        partial(max_iou, fg_iou_thresh=retinanet.FG_IOU_THRESHOLD, bg_iou_thresh=retinanet.BG_IOU_THRESHOLD),
        delta_weights=retinanet.DELTA_WEIGHTS,
        reg_beta=retinanet.BBOX_REG_BETA,
        normalizer=lookup(NORMALIZERS, retinanet.LOSS_NORMALIZER, "MODEL.RETINANET.LOSS_NORMALIZER")(
            reg_weight=retinanet.BBOX_REG_WEIGHT
        ),
        **_loss_and_selection(cfg, "RETINANET"),
    )


def build_fcos(cfg: CfgNode, backbone: Backbone, num_foreground: int) -> FCOS:
    """The dense stage of `MODEL.FCOS`."""
    fcos, pixel = cfg.MODEL.FCOS, pixel_of(cfg)
    _check_levels("MODEL.FCOS.FPN_STRIDES", fcos.FPN_STRIDES, cfg, backbone)
    head = FCOSHead(
        backbone.fpn.out_channels,
        num_foreground,
        backbone.fpn.num_levels,
        fcos.NUM_CONVS,
        fcos.USE_DCN_IN_TOWER,
        fcos.PRIOR_PROB,
        fcos.CENTERNESS_ON_REG,
        exponential=not fcos.NORM_REG_TARGETS,
    )
    points = AnchorGenerator(
        [[stride if fcos.NORM_REG_TARGETS else 1] for stride in fcos.FPN_STRIDES],
        [1.0],
        fcos.FPN_STRIDES,
        pixel == box_ops.INCLUSIVE,
        cfg.MODEL.ANCHOR_CONVENTION,
    )
    return FCOS(
        head,
        points,
        partial(ssc, inset=pixel / 2, margin=0.0, radius=fcos.CENTER_SAMPLING_RADIUS),
        iou_loss=lookup(IOU_LOSSES, fcos.IOU_LOSS_TYPE, "MODEL.FCOS.IOU_LOSS_TYPE"),
        thresh_joint_score=fcos.THRESH_JOINT_SCORE,
        **_loss_and_selection(cfg, "FCOS"),
    )


DENSE_STAGES: dict[str, Callable[[CfgNode, Backbone, int], DenseStage]] = {
    "ATSS": build_atss,
    "RETINANET": build_retinanet,
    "FCOS": build_fcos,
}
"""By the group of keys under MODEL; `MODEL.<group>_ON` chooses one."""


def dense_group(cfg: CfgNode) -> str:
    """The group of keys of the dense stage that is on, "" for none."""
    return next((group for group in DENSE_STAGES if cfg.MODEL[f"{group}_ON"]), "")


def final_thresholds(cfg: CfgNode) -> tuple[float, float]:
    """Lowest score and IoU of the suppression in the stage that answers."""
    if not cfg.MODEL.RPN_ONLY:
        return cfg.MODEL.ROI_HEADS.SCORE_THRESH, cfg.MODEL.ROI_HEADS.NMS
    keys = cfg.MODEL[dense_group(cfg)]
    return keys.INFERENCE_TH, keys.NMS_TH


def build_anchors(cfg: CfgNode, group: str, backbone: Backbone) -> AnchorGenerator:
    """The anchors of `MODEL.<group>`, several sizes an octave."""
    keys, convention = cfg.MODEL[group], cfg.MODEL.ANCHOR_CONVENTION
    _check_levels(f"MODEL.{group}.ANCHOR_STRIDES", keys.ANCHOR_STRIDES, cfg, backbone)
    return AnchorGenerator(
        octave_sizes(keys.ANCHOR_SIZES, keys.OCTAVE, keys.SCALES_PER_OCTAVE, whole=convention == "torchvision"),
        keys.ASPECT_RATIOS,
        keys.ANCHOR_STRIDES,
        pixel_of(cfg) == box_ops.INCLUSIVE,
        convention,
    )


def _check_levels(key: str, strides: Sequence[int], cfg: CfgNode, backbone: Backbone) -> None:
    if len(strides) != backbone.fpn.num_levels:
        raise InputError(
            f"{key} has {len(strides)} entries, but {cfg.MODEL.BACKBONE.CONV_BODY} gives "
            f"{backbone.fpn.num_levels} levels"
        )


def _loss_and_selection(cfg: CfgNode, group: str) -> dict[str, float]:
    """Arguments of `DenseStage` that all groups name alike."""
    keys = cfg.MODEL[group]
    return {
        "pixel": pixel_of(cfg),
        "focal_alpha": keys.LOSS_ALPHA,
        "focal_gamma": keys.LOSS_GAMMA,
        "score_thresh": keys.INFERENCE_TH,
        "pre_nms_top_n": keys.PRE_NMS_TOP_N,
        "nms_thresh": keys.NMS_TH,
        "max_detections": cfg.TEST.DETECTIONS_PER_IMG,
    }


def build_assigner(cfg: CfgNode, inset: float) -> partial:
    """The rule of `MODEL.ATSS.POSITIVE_TYPE` with its parameters bound."""
    atss = cfg.MODEL.ATSS
    word = atss.POSITIVE_TYPE
    name = word if word in ASSIGNERS else word.lower()
    parameters = {
        "atss": {"topk": atss.TOPK},
        "topk": {"topk": atss.TOPK},
        "iou": {"fg_iou_thresh": atss.FG_IOU_THRESHOLD, "bg_iou_thresh": atss.BG_IOU_THRESHOLD},
    }
    return partial(lookup(ASSIGNERS, name, "MODEL.ATSS.POSITIVE_TYPE"), inset=inset, **parameters.get(name, {}))
