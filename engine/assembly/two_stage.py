"""cfg -> the region proposal network and the RoI heads of a two-stage detector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from yacs.config import CfgNode

from engine.assembly.convention import build_convention
from engine.errors import InputError
from engine.modeling.anchors import AnchorGenerator
from engine.modeling.assign import match_boxes
from engine.modeling.backbone import Backbone
from engine.modeling.box_coding import MAX_LOG_RATIO, DeltaCoder
from engine.modeling.selection import Selection
from engine.modeling.two_stage.box_head import FEATURE_EXTRACTORS, BoxHead, ExtractorShape, FPNPredictor
from engine.modeling.two_stage.cascade import SCORE_MEANS, CascadeRoIHeads, CascadeStage
from engine.modeling.two_stage.roi_heads import StandardRoIHeads
from engine.modeling.two_stage.roi_losses import BOX_LOSSES, CLS_LOSSES
from engine.modeling.two_stage.roi_pooling import RoIPooler
from engine.modeling.two_stage.rpn import RPN, RPN_HEADS, ProposalRule
from engine.modeling.two_stage.sampling import SAMPLERS, Sampling
from engine.registry import lookup


def build_rpn(cfg: CfgNode, backbone: Backbone) -> RPN:
    """The region proposal network of `MODEL.RPN`."""
    check_strides("MODEL.RPN.ANCHOR_STRIDE", cfg.MODEL.RPN.ANCHOR_STRIDE, backbone.strides)
    num_levels = len(backbone.strides)
    per_level = len(cfg.MODEL.RPN.ANCHOR_SIZES) // num_levels
    anchor_generator = AnchorGenerator(
        [cfg.MODEL.RPN.ANCHOR_SIZES[i * per_level : (i + 1) * per_level] for i in range(num_levels)],
        cfg.MODEL.RPN.ASPECT_RATIOS,
        cfg.MODEL.RPN.ANCHOR_STRIDE,
        build_convention(cfg),
    )
    head = lookup(RPN_HEADS, cfg.MODEL.RPN.RPN_HEAD, "MODEL.RPN.RPN_HEAD")
    sampler = lookup(SAMPLERS, cfg.MODEL.RPN.SAMPLER, "MODEL.RPN.SAMPLER")
    box_loss = lookup(BOX_LOSSES, cfg.MODEL.RPN.BBOX_LOSS, "MODEL.RPN.BBOX_LOSS")
    return RPN(
        head(backbone.out_channels, anchor_generator.per_cell),
        anchor_generator,
        partial(
            match_boxes,
            fg_iou_thresh=cfg.MODEL.RPN.FG_IOU_THRESHOLD,
            bg_iou_thresh=cfg.MODEL.RPN.BG_IOU_THRESHOLD,
            low_quality_iou=cfg.MODEL.RPN.LOW_QUALITY_IOU if cfg.MODEL.RPN.LOW_QUALITY_IOU < 1 else None,
            low_quality_own=cfg.MODEL.RPN.LOW_QUALITY_OWN,
        ),
        Sampling(cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE, cfg.MODEL.RPN.POSITIVE_FRACTION, sampler),
        DeltaCoder((1.0, 1.0, 1.0, 1.0), min_log_ratio_of(cfg)),
        partial(box_loss, **box_loss_parameters(cfg.MODEL.RPN.BBOX_LOSS, cfg.MODEL.RPN.BBOX_LOSS_BETA)),
        ProposalRule(
            cfg.MODEL.RPN.PRE_NMS_TOP_N_TRAIN,
            cfg.MODEL.RPN.POST_NMS_TOP_N_TRAIN,
            cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN,
            cfg.MODEL.RPN.NMS_THRESH,
            cfg.MODEL.RPN.MIN_SIZE,
        ),
        ProposalRule(
            cfg.MODEL.RPN.PRE_NMS_TOP_N_TEST,
            cfg.MODEL.RPN.POST_NMS_TOP_N_TEST,
            cfg.MODEL.RPN.FPN_POST_NMS_TOP_N_TEST,
            cfg.MODEL.RPN.NMS_THRESH,
            cfg.MODEL.RPN.MIN_SIZE,
        ),
        straddle_thresh=cfg.MODEL.RPN.STRADDLE_THRESH,
        count_sampled=cfg.MODEL.RPN.COUNT_SAMPLED,
    )


def build_roi_heads(cfg: CfgNode, backbone: Backbone, num_foreground: int) -> StandardRoIHeads:
    """The second stage of `MODEL.ROI_HEADS` for `num_foreground` classes."""
    convention = build_convention(cfg)
    pooler = RoIPooler(
        cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
        [round(1 / scale) for scale in cfg.MODEL.ROI_BOX_HEAD.POOLER_SCALES],
        convention,
        cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
        aligned=cfg.MODEL.ROI_BOX_HEAD.POOLER_ALIGNED,
    )
    sampler = lookup(SAMPLERS, cfg.MODEL.ROI_HEADS.SAMPLER, "MODEL.ROI_HEADS.SAMPLER")
    sampling = Sampling(cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION, sampler)
    selection = Selection(
        cfg.MODEL.ROI_HEADS.SCORE_THRESH,
        pre_nms_top_n=0,
        nms_thresh=cfg.MODEL.ROI_HEADS.NMS,
        max_detections=cfg.MODEL.ROI_HEADS.DETECTIONS_PER_IMG,
    )
    if cfg.MODEL.ROI_HEADS.NAME == "StandardROIHeads":
        matcher = partial(
            match_boxes,
            fg_iou_thresh=cfg.MODEL.ROI_HEADS.FG_IOU_THRESHOLD,
            bg_iou_thresh=cfg.MODEL.ROI_HEADS.BG_IOU_THRESHOLD,
        )
        return StandardRoIHeads(
            pooler,
            build_box_head(cfg, backbone, num_foreground, cfg.MODEL.ROI_HEADS.BBOX_REG_WEIGHTS),
            num_foreground,
            matcher,
            sampling,
            selection,
            convention,
            cfg.MODEL.ROI_HEADS.PROPOSAL_APPEND_GT,
        )
    stages = [
        CascadeStage(
            build_box_head(cfg, backbone, num_foreground, weights),
            partial(match_boxes, fg_iou_thresh=iou, bg_iou_thresh=iou),
            loss_weight,
        )
        for weights, iou, loss_weight in zip(
            cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS,
            cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS,
            cfg.MODEL.ROI_BOX_CASCADE_HEAD.LOSS_WEIGHTS,
            strict=True,
        )
    ]
    return CascadeRoIHeads(
        pooler,
        stages,
        num_foreground,
        sampling,
        selection,
        lookup(SCORE_MEANS, cfg.MODEL.ROI_BOX_CASCADE_HEAD.SCORE_MEAN, "MODEL.ROI_BOX_CASCADE_HEAD.SCORE_MEAN"),
        convention,
        cfg.MODEL.ROI_HEADS.PROPOSAL_APPEND_GT,
        cfg.MODEL.ROI_BOX_CASCADE_HEAD.RESAMPLE,
        cfg.MODEL.ROI_BOX_CASCADE_HEAD.FEATURE_GRADIENT,
    )


def build_box_head(cfg: CfgNode, backbone: Backbone, num_foreground: int, delta_weights: tuple[float, ...]) -> BoxHead:
    """One stage of `MODEL.ROI_BOX_HEAD`."""
    extractor = lookup(
        FEATURE_EXTRACTORS, cfg.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR, "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR"
    )(
        ExtractorShape(
            channels=backbone.out_channels,
            resolution=cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION,
            fc_dim=cfg.MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM,
            conv_dim=cfg.MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM,
            num_convs=cfg.MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS,
            dilation=cfg.MODEL.ROI_BOX_HEAD.DILATION,
            use_gn=cfg.MODEL.ROI_BOX_HEAD.USE_GN,
            norm_name=cfg.MODEL.ROI_BOX_HEAD.NORM,
        )
    )
    cls_loss = lookup(CLS_LOSSES, cfg.MODEL.ROI_BOX_HEAD.CLS_LOSS, "MODEL.ROI_BOX_HEAD.CLS_LOSS")
    if cfg.MODEL.ROI_BOX_HEAD.CLS_LOSS == "focal":
        cls_loss = partial(cls_loss, alpha=cfg.MODEL.ROI_BOX_HEAD.LOSS_ALPHA, gamma=cfg.MODEL.ROI_BOX_HEAD.LOSS_GAMMA)
    box_loss = lookup(BOX_LOSSES, cfg.MODEL.ROI_BOX_HEAD.BBOX_LOSS, "MODEL.ROI_BOX_HEAD.BBOX_LOSS")
    parameters = box_loss_parameters(cfg.MODEL.ROI_BOX_HEAD.BBOX_LOSS, cfg.MODEL.ROI_BOX_HEAD.BBOX_LOSS_BETA)
    return BoxHead(
        extractor,
        FPNPredictor(extractor.out_features, num_foreground, cfg.MODEL.CLS_AGNOSTIC_BBOX_REG),
        DeltaCoder(delta_weights, min_log_ratio_of(cfg)),
        cls_loss=cls_loss,
        box_loss=partial(box_loss, **parameters),
        cls_loss_weight=cfg.MODEL.ROI_BOX_HEAD.CLS_LOSS_WEIGHT,
        box_loss_weight=cfg.MODEL.ROI_BOX_HEAD.BBOX_LOSS_WEIGHT,
    )


def box_loss_parameters(name: str, beta: float) -> dict[str, float]:
    """What the box loss of that name takes besides boxes and deltas: only smooth L1 has a beta."""
    return {"beta": beta} if name == "smooth_l1" else {}


def check_strides(key: str, anchor_strides: Sequence[int], strides: Sequence[int]) -> None:
    """Raises InputError if `anchor_strides`, the value of `key`, has another length than the pyramid's `strides`."""
    if len(anchor_strides) != len(strides):
        raise InputError(f"{key} has {len(anchor_strides)} entries, but the pyramid has {len(strides)} levels")


def min_log_ratio_of(cfg: CfgNode) -> float | None:
    """The lower limit of dw and dh that `MODEL.DELTA_LIMIT` says."""
    return -MAX_LOG_RATIO if cfg.MODEL.DELTA_LIMIT == "both" else None
