"""cfg -> the region proposal network and the RoI heads of a two-stage detector."""

from __future__ import annotations

from functools import partial

from yacs.config import CfgNode

from engine.errors import InputError
from engine.modeling.anchors import AnchorGenerator
from engine.modeling.backbone import Backbone
from engine.modeling.box_coding import MAX_LOG_RATIO
from engine.modeling.matching import match_boxes
from engine.modeling.two_stage.box_head import FEATURE_EXTRACTORS, BoxHead, ExtractorShape, FPNPredictor
from engine.modeling.two_stage.cascade import SCORE_MEANS, CascadeRoIHeads
from engine.modeling.two_stage.roi_heads import StandardRoIHeads
from engine.modeling.two_stage.roi_losses import BOX_LOSSES, CLS_LOSSES
from engine.modeling.two_stage.roi_pooling import RoIPooler
from engine.modeling.two_stage.rpn import RPN, RPN_HEADS, Limits
from engine.modeling.two_stage.sampling import SAMPLERS, Sampling
from engine.registry import lookup
from engine.structures import boxes as box_ops


def build_rpn(cfg: CfgNode, backbone: Backbone, pixel: float) -> RPN:
    """The region proposal network of `MODEL.RPN`."""
    rpn = cfg.MODEL.RPN
    num_levels = len(rpn.ANCHOR_STRIDE)
    if num_levels != backbone.num_levels:
        raise InputError(
            f"MODEL.RPN.ANCHOR_STRIDE has {num_levels} entries, but {cfg.MODEL.BACKBONE.CONV_BODY} gives "
            f"{backbone.num_levels} levels"
        )
    per_level = len(rpn.ANCHOR_SIZES) // num_levels
    anchor_generator = AnchorGenerator(
        [rpn.ANCHOR_SIZES[i * per_level : (i + 1) * per_level] for i in range(num_levels)],
        rpn.ASPECT_RATIOS,
        rpn.ANCHOR_STRIDE,
        pixel == box_ops.INCLUSIVE,
        cfg.MODEL.ANCHOR_CONVENTION,
    )
    return RPN(
        lookup(RPN_HEADS, rpn.RPN_HEAD, "MODEL.RPN.RPN_HEAD")(backbone.out_channels, anchor_generator.per_cell),
        anchor_generator,
        partial(
            match_boxes,
            fg_iou_thresh=rpn.FG_IOU_THRESHOLD,
            bg_iou_thresh=rpn.BG_IOU_THRESHOLD,
            low_quality_iou=rpn.LOW_QUALITY_IOU if rpn.LOW_QUALITY_IOU < 1 else None,
            low_quality_own=rpn.LOW_QUALITY_OWN,
        ),
        build_sampling(cfg, "RPN"),
        build_box_loss(cfg, "RPN"),
        Limits(rpn.PRE_NMS_TOP_N_TRAIN, rpn.POST_NMS_TOP_N_TRAIN, rpn.FPN_POST_NMS_TOP_N_TRAIN),
        Limits(rpn.PRE_NMS_TOP_N_TEST, rpn.POST_NMS_TOP_N_TEST, rpn.FPN_POST_NMS_TOP_N_TEST),
        nms_thresh=rpn.NMS_THRESH,
        min_size=rpn.MIN_SIZE,
        straddle_thresh=rpn.STRADDLE_THRESH,
        count_sampled=rpn.COUNT_SAMPLED,
        min_log_ratio=min_log_ratio_of(cfg),
        pixel=pixel,
    )


def build_roi_heads(cfg: CfgNode, backbone: Backbone, num_classes: int, pixel: float) -> StandardRoIHeads:
    """The second stage of `MODEL.ROI_HEADS` for `num_classes` foreground classes."""
    heads, box = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
    strides = [round(1 / scale) for scale in box.POOLER_SCALES]
    parts = {
        "pooler": RoIPooler(
            box.POOLER_RESOLUTION, strides, box.POOLER_SAMPLING_RATIO, aligned=box.POOLER_ALIGNED, pixel=pixel
        ),
        "num_classes": num_classes,
        "sampling": build_sampling(cfg, "ROI_HEADS"),
        "append_gt": heads.PROPOSAL_APPEND_GT,
        "score_thresh": heads.SCORE_THRESH,
        "nms_thresh": heads.NMS,
        "max_detections": heads.DETECTIONS_PER_IMG,
        "pixel": pixel,
    }
    if heads.NAME == "StandardROIHeads":
        return StandardRoIHeads(
            box=build_box_head(cfg, backbone, num_classes, heads.BBOX_REG_WEIGHTS),
            match=partial(match_boxes, fg_iou_thresh=heads.FG_IOU_THRESHOLD, bg_iou_thresh=heads.BG_IOU_THRESHOLD),
            **parts,
        )
    cascade = cfg.MODEL.ROI_BOX_CASCADE_HEAD
    return CascadeRoIHeads(
        box=[build_box_head(cfg, backbone, num_classes, weights) for weights in cascade.BBOX_REG_WEIGHTS],
        matches=[partial(match_boxes, fg_iou_thresh=iou, bg_iou_thresh=iou) for iou in cascade.IOUS],
        loss_weights=cascade.LOSS_WEIGHTS,
        score_mean=lookup(SCORE_MEANS, cascade.SCORE_MEAN, "MODEL.ROI_BOX_CASCADE_HEAD.SCORE_MEAN"),
        resample=cascade.RESAMPLE,
        feature_gradient=cascade.FEATURE_GRADIENT,
        **parts,
    )


def build_box_head(cfg: CfgNode, backbone: Backbone, num_classes: int, delta_weights: tuple[float, ...]) -> BoxHead:
    """One stage of `MODEL.ROI_BOX_HEAD`."""
    box = cfg.MODEL.ROI_BOX_HEAD
    extractor = lookup(FEATURE_EXTRACTORS, box.FEATURE_EXTRACTOR, "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR")(
        ExtractorShape(
            channels=backbone.out_channels,
            resolution=box.POOLER_RESOLUTION,
            fc_dim=box.MLP_HEAD_DIM,
            conv_dim=box.CONV_HEAD_DIM,
            num_convs=box.NUM_STACKED_CONVS,
            dilation=box.DILATION,
            use_gn=box.USE_GN,
        )
    )
    cls_parameters = {"focal": {"alpha": box.LOSS_ALPHA, "gamma": box.LOSS_GAMMA}}.get(box.CLS_LOSS, {})
    return BoxHead(
        extractor,
        FPNPredictor(extractor.out_features, num_classes, cfg.MODEL.CLS_AGNOSTIC_BBOX_REG),
        delta_weights,
        cls_loss=partial(lookup(CLS_LOSSES, box.CLS_LOSS, "MODEL.ROI_BOX_HEAD.CLS_LOSS"), **cls_parameters),
        box_loss=build_box_loss(cfg, "ROI_BOX_HEAD"),
        cls_loss_weight=box.CLS_LOSS_WEIGHT,
        box_loss_weight=box.BBOX_LOSS_WEIGHT,
        min_log_ratio=min_log_ratio_of(cfg),
    )


def build_sampling(cfg: CfgNode, group: str) -> Sampling:
    """Which regions `MODEL.<group>` learns from."""
    keys = cfg.MODEL[group]
    sampler = lookup(SAMPLERS, keys.SAMPLER, f"MODEL.{group}.SAMPLER")
    return Sampling(keys.BATCH_SIZE_PER_IMAGE, keys.POSITIVE_FRACTION, sampler)


def build_box_loss(cfg: CfgNode, group: str) -> partial:
    """The box loss of `MODEL.<group>.BBOX_LOSS` with its parameters bound."""
    name, beta = cfg.MODEL[group].BBOX_LOSS, cfg.MODEL[group].BBOX_LOSS_BETA
    parameters = {"smooth_l1": {"beta": beta}}.get(name, {})
    return partial(lookup(BOX_LOSSES, name, f"MODEL.{group}.BBOX_LOSS"), **parameters)


def min_log_ratio_of(cfg: CfgNode) -> float | None:
    """The lower limit of dw and dh that `MODEL.DELTA_LIMIT` says."""
    return -MAX_LOG_RATIO if cfg.MODEL.DELTA_LIMIT == "both" else None
