"""The rules of `rules.py` that speak of two-stage detectors (`MODEL.RPN_ONLY: False`)."""

from __future__ import annotations

from collections.abc import Iterator

from yacs.config import CfgNode

Broken = Iterator[tuple[tuple[str, ...], str]]

_CANNOT_PROPOSE = ("MODEL.RETINANET_ON", "MODEL.FCOS_ON")
_ONE_STAGE = "or MODEL.RPN_ONLY: True for a detector of one stage"


def two_stage(cfg: CfgNode, pyramid_strides: tuple[int, ...] | None) -> Broken:
    """The rules that a two-stage detector breaks.

    Args:
        pyramid_strides: of the body's levels, None where they are not known.
    """
    for key in _CANNOT_PROPOSE:
        if cfg.MODEL[key.removeprefix("MODEL.")]:
            yield (
                (key, "MODEL.RPN_ONLY"),
                f"{key} cannot propose boxes to a second stage; write MODEL.RPN_ONLY: True",
            )
            return
    yield from _parts(cfg)
    if not cfg.MODEL.ATSS_ON:
        yield from _rpn(cfg, pyramid_strides)
    yield from _pooler(cfg, pyramid_strides)
    if cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads":
        yield from _cascade(cfg)


def _parts(cfg: CfgNode) -> Broken:
    box = cfg.MODEL.ROI_BOX_HEAD
    if box.FEATURE_EXTRACTOR.startswith("ResNet50Conv5"):
        yield (
            ("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "MODEL.RPN_ONLY"),
            f"MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR {box.FEATURE_EXTRACTOR} (the default) belongs to bodies without a "
            f"pyramid; write FPN2MLPFeatureExtractor, {_ONE_STAGE}",
        )
    elif box.PREDICTOR == "FastRCNNPredictor":
        yield (
            ("MODEL.ROI_BOX_HEAD.PREDICTOR", "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR"),
            "MODEL.ROI_BOX_HEAD.PREDICTOR FastRCNNPredictor (the default) belongs to bodies without a pyramid; write "
            "FPNPredictor",
        )
    for key, is_on in (
        ("MODEL.RPN.USE_FPN", cfg.MODEL.RPN.USE_FPN or cfg.MODEL.ATSS_ON),
        ("MODEL.ROI_HEADS.USE_FPN", cfg.MODEL.ROI_HEADS.USE_FPN),
    ):
        if not is_on:
            yield (key,), f"{key} is False, but every body has a pyramid; write True, {_ONE_STAGE}"
    heads = cfg.MODEL.ROI_HEADS
    if heads.BG_IOU_THRESHOLD > heads.FG_IOU_THRESHOLD:
        yield (
            ("MODEL.ROI_HEADS.BG_IOU_THRESHOLD", "MODEL.ROI_HEADS.FG_IOU_THRESHOLD"),
            f"MODEL.ROI_HEADS.BG_IOU_THRESHOLD {heads.BG_IOU_THRESHOLD} is above FG_IOU_THRESHOLD "
            f"{heads.FG_IOU_THRESHOLD}; it must not be",
        )


def _rpn(cfg: CfgNode, pyramid_strides: tuple[int, ...] | None) -> Broken:
    rpn = cfg.MODEL.RPN
    sizes, strides = len(rpn.ANCHOR_SIZES), len(rpn.ANCHOR_STRIDE)
    keys = ("MODEL.RPN.ANCHOR_SIZES", "MODEL.RPN.ANCHOR_STRIDE")
    if sizes % strides:
        yield (
            keys,
            f"MODEL.RPN.ANCHOR_SIZES has {sizes} entries and MODEL.RPN.ANCHOR_STRIDE has {strides}; each level needs "
            "equally many sizes",
        )
    if pyramid_strides and pyramid_strides != rpn.ANCHOR_STRIDE:
        yield (
            ("MODEL.RPN.ANCHOR_STRIDE", "MODEL.BACKBONE.CONV_BODY"),
            f"MODEL.RPN.ANCHOR_STRIDE is {rpn.ANCHOR_STRIDE}, but the levels of {cfg.MODEL.BACKBONE.CONV_BODY} have "
            f"the strides {pyramid_strides}; write these",
        )
    if rpn.BG_IOU_THRESHOLD > rpn.FG_IOU_THRESHOLD:
        yield (
            ("MODEL.RPN.BG_IOU_THRESHOLD", "MODEL.RPN.FG_IOU_THRESHOLD"),
            f"MODEL.RPN.BG_IOU_THRESHOLD {rpn.BG_IOU_THRESHOLD} is above FG_IOU_THRESHOLD {rpn.FG_IOU_THRESHOLD}; "
            "it must not be",
        )


def _pooler(cfg: CfgNode, pyramid_strides: tuple[int, ...] | None) -> Broken:
    scales = cfg.MODEL.ROI_BOX_HEAD.POOLER_SCALES
    strides = tuple(round(1 / scale) for scale in scales)
    if pyramid_strides and strides != pyramid_strides[: len(strides)]:
        some = ", ".join(str(1 / stride) for stride in pyramid_strides[:4])
        yield (
            ("MODEL.ROI_BOX_HEAD.POOLER_SCALES", "MODEL.BACKBONE.CONV_BODY"),
            f"MODEL.ROI_BOX_HEAD.POOLER_SCALES is {scales}, but the first levels of {cfg.MODEL.BACKBONE.CONV_BODY} "
            f"have the scales ({some}); write these or the first of them",
        )


def _cascade(cfg: CfgNode) -> Broken:
    cascade, path = cfg.MODEL.ROI_BOX_CASCADE_HEAD, "MODEL.ROI_BOX_CASCADE_HEAD"
    stages = len(cascade.IOUS)
    for name in ("BBOX_REG_WEIGHTS", "LOSS_WEIGHTS"):
        if len(cascade[name]) != stages:
            yield (
                (f"{path}.{name}", f"{path}.IOUS"),
                f"{path}.{name} has {len(cascade[name])} entries and {path}.IOUS has {stages}; each stage needs one of "
                "both",
            )
    for weights in cascade.BBOX_REG_WEIGHTS:
        if len(weights) != 4 or min(weights) <= 0:
            yield (
                (f"{path}.BBOX_REG_WEIGHTS",),
                f"{path}.BBOX_REG_WEIGHTS has {weights}; it must be four numbers above 0, for dx, dy, dw, dh",
            )
