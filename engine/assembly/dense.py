"""cfg -> the dense stage, its anchors and its assigner."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch.nn.functional as F
from yacs.config import CfgNode

from engine.assembly.convention import build_convention
from engine.assembly.two_stage import box_loss_parameters, build_rpn, check_strides, min_log_ratio_of
from engine.config.parts import dense_name
from engine.errors import InputError
from engine.layers.convs import CONVS
from engine.layers.iou_losses import IOU_LOSSES
from engine.layers.norm import NORMS
from engine.modeling.anchors import AnchorGenerator, octave_sizes
from engine.modeling.assign import ASSIGNERS, Assigner, assign_max_iou, assign_ssc
from engine.modeling.backbone import Backbone
from engine.modeling.box_coding import BoxCoder, DeltaCoder, DistanceCoder
from engine.modeling.dense.centerness import (
    CenternessHead,
    CenternessStage,
    exponential,
    identity,
    loss_of_boxes,
    loss_of_codes,
)
from engine.modeling.dense.class_losses import DENSE_CLS_LOSSES
from engine.modeling.dense.retinanet import NORMALIZERS, RetinaNet, RetinaNetHead
from engine.modeling.dense.stage import DENSE_STAGES, SCORE_RULES, DenseParts, DenseShape, DenseStage
from engine.modeling.dense.towers import Towers
from engine.modeling.selection import Selection
from engine.modeling.two_stage.roi_losses import BOX_LOSSES
from engine.modeling.two_stage.rpn import RPN
from engine.registry import call_with, lookup, taken_by


def build_dense(cfg: CfgNode, backbone: Backbone, num_foreground: int) -> DenseStage:
    """The dense stage that is on, for `num_foreground` classes.

    Raises:
        InputError: none is on, nothing is registered under its name, or it does not take an argument.
    """
    name = dense_name(cfg)
    if not name:
        raise InputError("no dense stage is on; write MODEL.ATSS_ON: True (or RETINANET_ON, FCOS_ON, DENSE.NAME)")
    shape = DenseShape(
        channels=backbone.out_channels,
        strides=tuple(backbone.strides),
        num_classes=num_foreground,
        convention=build_convention(cfg),
        max_detections=cfg.TEST.DETECTIONS_PER_IMG,
    )
    stage = lookup(DENSE_STAGES, name, "MODEL.DENSE.NAME")
    # Those below take cfg: they have groups of keys of their own.
    towers = build_towers(cfg)
    given = {"shape": shape, **taken_by(stage, {"cfg": cfg, "towers": towers})}
    if towers != Towers() and "towers" not in given:
        raise InputError(f"MODEL.DENSE.TOWER_*: {name} takes no argument towers; remove these keys")
    return call_with(stage, name, dict(cfg.MODEL.DENSE.ARGS), "MODEL.DENSE.ARGS", given)


def build_towers(cfg: CfgNode) -> Towers:
    """What the keys `MODEL.DENSE.TOWER_*` say."""
    lookup(CONVS, cfg.MODEL.DENSE.TOWER_CONV, "MODEL.DENSE.TOWER_CONV")
    if cfg.MODEL.DENSE.TOWER_NORM:
        lookup(NORMS, cfg.MODEL.DENSE.TOWER_NORM, "MODEL.DENSE.TOWER_NORM")
    return Towers(
        cfg.MODEL.DENSE.TOWER_CONV,
        cfg.MODEL.DENSE.TOWER_KERNEL,
        cfg.MODEL.DENSE.TOWER_NORM,
        cfg.MODEL.DENSE.TOWER_SHARED,
    )


def build_proposals(cfg: CfgNode, backbone: Backbone) -> RPN | DenseStage:
    """The first stage of a two-stage detector: `MODEL.RPN`, or the dense stage that is on, which then finds objects."""
    if not dense_name(cfg):
        return build_rpn(cfg, backbone)
    stage = build_dense(cfg, backbone, 1)
    # The second stage decides what is an object, so that no score is too low.
    proposals = replace(stage.selection, score_thresh=0.0, nms_thresh=cfg.MODEL.RPN.NMS_THRESH)
    stage.train_selection = replace(proposals, max_detections=cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN)
    stage.selection = replace(proposals, max_detections=cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TEST)
    return stage


@DENSE_STAGES.register("ATSS")
def build_atss(shape: DenseShape, cfg: CfgNode, towers: Towers) -> CenternessStage:
    """The dense stage of `MODEL.ATSS`."""
    check_strides("MODEL.ATSS.ANCHOR_STRIDES", cfg.MODEL.ATSS.ANCHOR_STRIDES, shape.strides)
    sizes = octave_sizes(
        cfg.MODEL.ATSS.ANCHOR_SIZES,
        cfg.MODEL.ATSS.OCTAVE,
        cfg.MODEL.ATSS.SCALES_PER_OCTAVE,
        shape.convention.has_whole_sizes,
    )
    anchor_generator = AnchorGenerator(
        sizes, cfg.MODEL.ATSS.ASPECT_RATIOS, cfg.MODEL.ATSS.ANCHOR_STRIDES, shape.convention
    )
    is_point = cfg.MODEL.ATSS.REGRESSION_TYPE == "POINT"
    coder: BoxCoder = DeltaCoder(min_log_ratio=min_log_ratio_of(cfg))
    if is_point:
        # The reference divides by the width of the anchor times this, at all levels: their ratios must be alike.
        coder = DistanceCoder(cfg.MODEL.ATSS.ANCHOR_SIZES[0] / cfg.MODEL.ATSS.ANCHOR_STRIDES[0], shape.convention.inset)
    head = CenternessHead(
        shape.channels,
        shape.num_classes,
        anchor_generator.per_cell,
        len(shape.strides),
        cfg.MODEL.ATSS.NUM_CONVS,
        replace(towers, deformable=cfg.MODEL.ATSS.USE_DCN_IN_TOWER),
        cfg.MODEL.ATSS.PRIOR_PROB,
        centerness_on_reg=True,
        activation=F.relu if is_point else identity,
        box_bias=4.0 if is_point else 0.0,  # as in the reference: distances that start at 0 would stay there
    )
    selection = Selection(
        cfg.MODEL.ATSS.INFERENCE_TH, cfg.MODEL.ATSS.PRE_NMS_TOP_N, cfg.MODEL.ATSS.NMS_TH, cfg.TEST.DETECTIONS_PER_IMG
    )
    cls_loss = lookup(DENSE_CLS_LOSSES, cfg.MODEL.ATSS.CLS_LOSS, "MODEL.ATSS.CLS_LOSS")
    alpha, gamma = cfg.MODEL.ATSS.LOSS_ALPHA, cfg.MODEL.ATSS.LOSS_GAMMA
    score_rule = SCORE_RULES[cfg.MODEL.ATSS.SCORE]
    return CenternessStage(
        DenseParts(head, anchor_generator, build_assigner(cfg), coder, cls_loss(alpha, gamma), score_rule, selection),
        box_loss=partial(
            loss_of_boxes,
            coder=coder,
            convention=shape.convention,
            loss=lookup(BOX_LOSSES, cfg.MODEL.ATSS.BBOX_LOSS, "MODEL.ATSS.BBOX_LOSS"),
        ),
        reg_loss_weight=cfg.MODEL.ATSS.REG_LOSS_WEIGHT,
        min_positives=cfg.MODEL.ATSS.MIN_POSITIVES,
    )


def build_assigner(cfg: CfgNode) -> Assigner:
    """The rule of `MODEL.ATSS.POSITIVE_TYPE` with its parameters bound."""
    name = cfg.MODEL.ATSS.POSITIVE_TYPE
    ious = {"fg_iou_thresh": cfg.MODEL.ATSS.FG_IOU_THRESHOLD, "bg_iou_thresh": cfg.MODEL.ATSS.BG_IOU_THRESHOLD}
    parameters = {"ATSS": {"topk": cfg.MODEL.ATSS.TOPK}, "TOPK": {"topk": cfg.MODEL.ATSS.TOPK}, "IoU": ious}
    return partial(lookup(ASSIGNERS, name, "MODEL.ATSS.POSITIVE_TYPE"), **parameters.get(name, {}))


@DENSE_STAGES.register("RETINANET")
def build_retinanet(shape: DenseShape, cfg: CfgNode, towers: Towers) -> RetinaNet:
    """The dense stage of `MODEL.RETINANET`."""
    check_strides("MODEL.RETINANET.ANCHOR_STRIDES", cfg.MODEL.RETINANET.ANCHOR_STRIDES, shape.strides)
    sizes = octave_sizes(
        cfg.MODEL.RETINANET.ANCHOR_SIZES,
        cfg.MODEL.RETINANET.OCTAVE,
        cfg.MODEL.RETINANET.SCALES_PER_OCTAVE,
        shape.convention.has_whole_sizes,
    )
    anchor_generator = AnchorGenerator(
        sizes, cfg.MODEL.RETINANET.ASPECT_RATIOS, cfg.MODEL.RETINANET.ANCHOR_STRIDES, shape.convention
    )
    head = RetinaNetHead(
        shape.channels,
        shape.num_classes,
        anchor_generator.per_cell,
        cfg.MODEL.RETINANET.NUM_CONVS,
        cfg.MODEL.RETINANET.PRIOR_PROB,
        "GN" if cfg.MODEL.RETINANET.USE_GN else "",
        towers,
    )
    box_loss = lookup(BOX_LOSSES, cfg.MODEL.RETINANET.BBOX_LOSS, "MODEL.RETINANET.BBOX_LOSS")
    parameters = box_loss_parameters(cfg.MODEL.RETINANET.BBOX_LOSS, cfg.MODEL.RETINANET.BBOX_REG_BETA)
    normalizer = lookup(NORMALIZERS, cfg.MODEL.RETINANET.LOSS_NORMALIZER, "MODEL.RETINANET.LOSS_NORMALIZER")
    assign = partial(
        assign_max_iou,
        fg_iou_thresh=cfg.MODEL.RETINANET.FG_IOU_THRESHOLD,
        bg_iou_thresh=cfg.MODEL.RETINANET.BG_IOU_THRESHOLD,
    )
    selection = Selection(
        cfg.MODEL.RETINANET.INFERENCE_TH,
        cfg.MODEL.RETINANET.PRE_NMS_TOP_N,
        cfg.MODEL.RETINANET.NMS_TH,
        cfg.TEST.DETECTIONS_PER_IMG,
    )
    coder = DeltaCoder(cfg.MODEL.RETINANET.DELTA_WEIGHTS)
    cls_loss = lookup(DENSE_CLS_LOSSES, cfg.MODEL.RETINANET.CLS_LOSS, "MODEL.RETINANET.CLS_LOSS")
    alpha, gamma = cfg.MODEL.RETINANET.LOSS_ALPHA, cfg.MODEL.RETINANET.LOSS_GAMMA
    return RetinaNet(
        DenseParts(head, anchor_generator, assign, coder, cls_loss(alpha, gamma), SCORE_RULES["class"], selection),
        normalizer=normalizer(reg_weight=cfg.MODEL.RETINANET.BBOX_REG_WEIGHT),
        box_loss=partial(box_loss, **parameters),
    )


@DENSE_STAGES.register("FCOS")
def build_fcos(shape: DenseShape, cfg: CfgNode, towers: Towers) -> CenternessStage:
    """The dense stage of `MODEL.FCOS`."""
    check_strides("MODEL.FCOS.FPN_STRIDES", cfg.MODEL.FCOS.FPN_STRIDES, shape.strides)
    in_strides = cfg.MODEL.FCOS.NORM_REG_TARGETS  # the unit of distance; else pixels
    head = CenternessHead(
        shape.channels,
        shape.num_classes,
        num_anchors=1,
        num_levels=len(shape.strides),
        num_convs=cfg.MODEL.FCOS.NUM_CONVS,
        towers=replace(towers, deformable=cfg.MODEL.FCOS.USE_DCN_IN_TOWER),
        prior=cfg.MODEL.FCOS.PRIOR_PROB,
        centerness_on_reg=cfg.MODEL.FCOS.CENTERNESS_ON_REG,
        activation=F.relu if in_strides else exponential,
    )
    points = AnchorGenerator(
        [[stride if in_strides else 1] for stride in cfg.MODEL.FCOS.FPN_STRIDES],
        [1.0],
        cfg.MODEL.FCOS.FPN_STRIDES,
        shape.convention,
    )
    coder = DistanceCoder(1.0, shape.convention.inset)
    iou_loss = lookup(IOU_LOSSES, cfg.MODEL.FCOS.IOU_LOSS_TYPE, "MODEL.FCOS.IOU_LOSS_TYPE")
    assign = partial(assign_ssc, margin=0.0, radius=cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS)
    cls_loss = lookup(DENSE_CLS_LOSSES, cfg.MODEL.FCOS.CLS_LOSS, "MODEL.FCOS.CLS_LOSS")
    alpha, gamma = cfg.MODEL.FCOS.LOSS_ALPHA, cfg.MODEL.FCOS.LOSS_GAMMA
    score_rule = SCORE_RULES["joint" if cfg.MODEL.FCOS.THRESH_JOINT_SCORE else "sqrt"]
    selection = Selection(
        cfg.MODEL.FCOS.INFERENCE_TH, cfg.MODEL.FCOS.PRE_NMS_TOP_N, cfg.MODEL.FCOS.NMS_TH, cfg.TEST.DETECTIONS_PER_IMG
    )
    return CenternessStage(
        DenseParts(head, points, assign, coder, cls_loss(alpha, gamma), score_rule, selection),
        box_loss=partial(loss_of_codes, coder=coder, loss=iou_loss),
    )
