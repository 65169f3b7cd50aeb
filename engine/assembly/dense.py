"""cfg -> dense stages, their anchors and their assigners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from yacs.config import CfgNode

from engine.assembly.convention import pixel_of
from engine.assembly.two_stage import build_rpn, min_log_ratio_of
from engine.errors import InputError
from engine.layers.iou_losses import IOU_LOSSES
from engine.modeling.anchors import AnchorGenerator, octave_sizes
from engine.modeling.assign import ASSIGNERS, max_iou, ssc
from engine.modeling.backbone import Backbone
from engine.modeling.dense.atss import ATSS, ATSSHead, ATSSProposals
from engine.modeling.dense.fcos import FCOS, FCOSHead
from engine.modeling.dense.retinanet import NORMALIZERS, RetinaNet, RetinaNetHead
from engine.modeling.dense.stage import DenseStage
from engine.modeling.two_stage.rpn import RPN
from engine.registry import lookup
from engine.structures import boxes as box_ops


def build_dense(cfg: CfgNode, backbone: Backbone, num_foreground: int) -> DenseStage:
    """The dense stage that is on: ATSS, RetinaNet or FCOS."""
    group = dense_group(cfg)
    if group not in DENSE_STAGES:
        raise InputError("no dense stage is on; write MODEL.ATSS_ON: True (or RETINANET_ON, FCOS_ON)")
    return DENSE_STAGES[group](cfg, backbone, num_foreground)


def build_proposals(cfg: CfgNode, backbone: Backbone) -> RPN | ATSSProposals:
    """The first stage of a two-stage detector: `MODEL.RPN`, or `MODEL.ATSS` where it is on."""
    if not cfg.MODEL.ATSS_ON:
        return build_rpn(cfg, backbone, pixel_of(cfg))
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
        backbone.out_channels,
        num_foreground,
        anchor_generator.per_cell,
        backbone.num_levels,
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
        backbone.out_channels,
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
        backbone.out_channels,
        num_foreground,
        backbone.num_levels,
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
    if len(strides) != backbone.num_levels:
        raise InputError(
            f"{key} has {len(strides)} entries, but {cfg.MODEL.BACKBONE.CONV_BODY} gives {backbone.num_levels} levels"
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
    name = atss.POSITIVE_TYPE
    parameters = {
        "ATSS": {"topk": atss.TOPK},
        "TOPK": {"topk": atss.TOPK},
        "IoU": {"fg_iou_thresh": atss.FG_IOU_THRESHOLD, "bg_iou_thresh": atss.BG_IOU_THRESHOLD},
    }
    return partial(lookup(ASSIGNERS, name, "MODEL.ATSS.POSITIVE_TYPE"), inset=inset, **parameters.get(name, {}))
