"""Rules between keys, a sentence each; they are checked once everything is merged.

A rule yields (keys, sentence): the sentence says what is wrong and the way out, the keys are the
ones it speaks of, so that the error can point at the one that was written last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from yacs.config import CfgNode

from engine.config.catalog import missing_fields, unknown_types
from engine.config.rules_solver import solver
from engine.config.rules_two_stage import two_stage
from engine.config.unsupported import NOT_YET

Broken = Iterator[tuple[tuple[str, ...], str]]

_DENSE = ("MODEL.ATSS_ON", "MODEL.RETINANET_ON", "MODEL.FCOS_ON")
_STRIDES = {
    "MODEL.ATSS_ON": "MODEL.ATSS.ANCHOR_STRIDES",
    "MODEL.RETINANET_ON": "MODEL.RETINANET.ANCHOR_STRIDES",
    "MODEL.FCOS_ON": "MODEL.FCOS.FPN_STRIDES",
}
_CLASS_COUNTS = ("ATSS", "RETINANET", "FCOS", "ROI_BOX_HEAD")
_PYRAMID_STRIDES = {"-FPN-RETINANET": (8, 16, 32, 64, 128), "-FPN": (4, 8, 16, 32, 64)}


def broken_rules(cfg: CfgNode, is_complete: bool) -> Broken:
    """The rules that a tree breaks.

    Args:
        is_complete: the tree is meant to describe a detector. The default tree is not: it is the
        reference's, whose
            default detector (R-50-C4) nobody builds.
    """
    if is_complete or _dense_stages(cfg):
        yield from _one_detector(cfg)
        yield from _body(cfg)
        if not cfg.MODEL.RPN_ONLY:
            yield from two_stage(cfg, _pyramid_strides(cfg))
    yield from _device(cfg)
    yield from _input(cfg)
    yield from _norms(cfg)
    yield from _class_counts(cfg)
    yield from _anchors(cfg)
    yield from solver(cfg)
    yield from _validation(cfg)
    yield from _augmentation(cfg)
    yield from _data_sets(cfg)


def _dense_stages(cfg: CfgNode) -> list[str]:
    return [key for key in _DENSE if cfg.MODEL[key.removeprefix("MODEL.")]]


def _one_detector(cfg: CfgNode) -> Broken:
    stages = _dense_stages(cfg)
    if len(stages) > 1:
        yield _DENSE, f"{' and '.join(stages)} are on at once; keep one of them"
    elif not stages and cfg.MODEL.RPN_ONLY:
        yield (*_DENSE, "MODEL.RPN_ONLY"), "no detector is on; write MODEL.ATSS_ON: True"
    else:
        yield from _supported(cfg)


def _supported(cfg: CfgNode) -> Broken:
    for key, (is_asked_for, what, way_out) in NOT_YET.items():
        *groups, name = key.split(".")
        node = cfg
        for group in groups:
            node = node[group]
        if is_asked_for(node[name]):
            keys = (key, *_DENSE) if key == "MODEL.RPN_ONLY" else (key,)
            yield keys, f"not supported yet in this version: {what} ({key}); {way_out}"


def _body(cfg: CfgNode) -> Broken:
    body = cfg.MODEL.BACKBONE.CONV_BODY
    if body == "R-50-C4":
        yield (
            ("MODEL.BACKBONE.CONV_BODY", *_DENSE),
            "MODEL.BACKBONE.CONV_BODY R-50-C4 (the default) has no pyramid of levels; write R-50-FPN-RETINANET",
        )
    strides = _pyramid_strides(cfg)
    for stage in _dense_stages(cfg) if strides else ():
        key = _STRIDES[stage]
        *_, group, name = key.split(".")
        written = cfg.MODEL[group][name]
        if strides != written:
            yield (
                (key, "MODEL.BACKBONE.CONV_BODY"),
                f"{key} is {written}, but the levels of {body} have the strides {strides}; write these",
            )


def _pyramid_strides(cfg: CfgNode) -> tuple[int, ...] | None:
    """Strides of the body's levels; None where a user's module may have changed them."""
    if cfg.MODEL.RESNETS.RES5_DILATION != 1 or cfg.IMPORTS:
        return None
    found = (strides for suffix, strides in _PYRAMID_STRIDES.items() if cfg.MODEL.BACKBONE.CONV_BODY.endswith(suffix))
    return next(found, None)


def _device(cfg: CfgNode) -> Broken:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", cfg.MODEL.DEVICE):
        yield (
            ("MODEL.DEVICE",),
            f"MODEL.DEVICE must be cuda, cuda:N or cpu, got {cfg.MODEL.DEVICE!r}",
        )


def _input(cfg: CfgNode) -> Broken:
    mean, is_bgr255 = cfg.INPUT.PIXEL_MEAN, cfg.INPUT.TO_BGR255
    keys = ("INPUT.TO_BGR255", "INPUT.PIXEL_MEAN")
    if not is_bgr255 and max(mean) > 1:
        yield (
            keys,
            f"INPUT.TO_BGR255 false means RGB in 0..1, but INPUT.PIXEL_MEAN is {mean}, of 0..255; "
            "divide it by 255 and put red first, PIXEL_STD too",
        )
    if is_bgr255 and 0 < max(mean) <= 1:
        yield (
            keys,
            f"INPUT.TO_BGR255 true means BGR in 0..255, but INPUT.PIXEL_MEAN is {mean}, of 0..1; "
            "multiply it by 255 and put blue first, or write TO_BGR255: False",
        )
    if min(cfg.INPUT.PIXEL_STD) <= 0:
        yield ("INPUT.PIXEL_STD",), f"INPUT.PIXEL_STD is {cfg.INPUT.PIXEL_STD}; it must be above 0"
    low, high = cfg.INPUT.MIN_SIZE_RANGE_TRAIN
    if (low, high) != (-1, -1) and not 0 < low <= high:
        yield (
            ("INPUT.MIN_SIZE_RANGE_TRAIN",),
            f"INPUT.MIN_SIZE_RANGE_TRAIN is ({low}, {high}); "
            "it must be (low, high) with 0 < low <= high, or (-1, -1) for off",
        )


def _norms(cfg: CfgNode) -> Broken:
    group_norm, resnets = cfg.MODEL.GROUP_NORM, cfg.MODEL.RESNETS
    if (group_norm.DIM_PER_GP > 0) == (group_norm.NUM_GROUPS > 0):
        yield (
            ("MODEL.GROUP_NORM.DIM_PER_GP", "MODEL.GROUP_NORM.NUM_GROUPS"),
            f"MODEL.GROUP_NORM.DIM_PER_GP is {group_norm.DIM_PER_GP} and NUM_GROUPS is "
            f"{group_norm.NUM_GROUPS}; one of them must be -1 and the other positive",
        )
    if not resnets.NORM and resnets.STEM_FUNC.partition("With")[2] != resnets.TRANS_FUNC.partition("With")[2]:
        yield (
            ("MODEL.RESNETS.STEM_FUNC", "MODEL.RESNETS.TRANS_FUNC"),
            f"MODEL.RESNETS.STEM_FUNC is {resnets.STEM_FUNC} and TRANS_FUNC is {resnets.TRANS_FUNC}; "
            "their norms must be alike",
        )
    is_gn = "GN" in (resnets.NORM or resnets.STEM_FUNC + resnets.TRANS_FUNC)
    if cfg.MODEL.BACKBONE.USE_GN and not is_gn:
        yield (
            ("MODEL.BACKBONE.USE_GN", "MODEL.RESNETS.NORM"),
            "MODEL.BACKBONE.USE_GN is on, but the body has no group norm; write MODEL.RESNETS.NORM: GN",
        )
    yield from _group_sizes(cfg)


def _group_sizes(cfg: CfgNode) -> Broken:
    """Group norms, wherever they stand, have 32 groups."""
    model, head = cfg.MODEL, cfg.MODEL.ROI_BOX_HEAD
    has_tower = model.ATSS_ON or model.FCOS_ON or (model.RETINANET_ON and model.RETINANET.USE_GN)
    widths = {
        "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": (model.RESNETS.BACKBONE_OUT_CHANNELS, has_tower or model.FPN.USE_GN),
        "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": (head.MLP_HEAD_DIM, not model.RPN_ONLY and head.USE_GN),
        "MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM": (head.CONV_HEAD_DIM, not model.RPN_ONLY and head.USE_GN),
    }
    for key, (channels, has_norm) in widths.items():
        if has_norm and channels % 32:
            yield (key,), f"{key} is {channels}, but the group norms behind it have 32 groups; write a multiple of 32"


def _class_counts(cfg: CfgNode) -> Broken:
    for group in _CLASS_COUNTS:
        key, count = f"MODEL.{group}.NUM_CLASSES", cfg.MODEL[group].NUM_CLASSES
        if count < 0 or count == 1:
            yield (
                (key,),
                f"{key} is {count}; it counts the foreground classes + 1: "
                "2 for one class, or 0 to take them from the data set",
            )


def _anchors(cfg: CfgNode) -> Broken:
    for group in ("ATSS", "RETINANET"):
        keys, path = cfg.MODEL[group], f"MODEL.{group}"
        sizes, strides = len(keys.ANCHOR_SIZES), len(keys.ANCHOR_STRIDES)
        if sizes != strides:
            yield (
                (f"{path}.ANCHOR_SIZES", f"{path}.ANCHOR_STRIDES"),
                f"{path}.ANCHOR_SIZES has {sizes} entries and {path}.ANCHOR_STRIDES has "
                f"{strides}; each level needs one of both",
            )
        if keys.BG_IOU_THRESHOLD > keys.FG_IOU_THRESHOLD:
            yield (
                (f"{path}.BG_IOU_THRESHOLD", f"{path}.FG_IOU_THRESHOLD"),
                f"{path}.BG_IOU_THRESHOLD {keys.BG_IOU_THRESHOLD} is above FG_IOU_THRESHOLD "
                f"{keys.FG_IOU_THRESHOLD}; it must not be",
            )


def _validation(cfg: CfgNode) -> Broken:
    group, keys = "SOLVER.VALIDATION", cfg.SOLVER.VALIDATION
    period, period_epoch, patience = (f"{group}.{name}" for name in ("PERIOD", "PERIOD_EPOCH", "PATIENCE"))
    written = [key for key in (period, period_epoch, patience) if keys[key.rpartition(".")[2]]]
    if written and not cfg.DATASETS.VAL:
        yield (*written, "DATASETS.VAL"), f"{written[0]} is set, but DATASETS.VAL names no data set to validate on"
    if keys.PERIOD and keys.PERIOD_EPOCH:
        yield (period, period_epoch), f"{period} and {period_epoch} are both set; keep one of them"
    if keys.PATIENCE and not keys.PERIOD and not keys.PERIOD_EPOCH:
        yield (patience,), f"{patience} counts validations, but there is one at the end only; set {period}"
    if keys.METRIC == "loss" and not keys.LOSS:
        yield (f"{group}.METRIC", f"{group}.LOSS"), f"{group}.METRIC is loss, but LOSS is off; write LOSS: True"


def _augmentation(cfg: CfgNode) -> Broken:
    scales, ranges = cfg.TEST.BBOX_AUG.SCALES, cfg.TEST.BBOX_AUG.SCALE_RANGES
    if ranges and len(ranges) != len(scales):
        yield (
            ("TEST.BBOX_AUG.SCALE_RANGES", "TEST.BBOX_AUG.SCALES"),
            f"TEST.BBOX_AUG.SCALE_RANGES has {len(ranges)} entries and TEST.BBOX_AUG.SCALES has "
            f"{len(scales)}; write one (low, high) for each scale, or () for none",
        )
    for low, high in ranges:
        if low >= high:
            yield (
                ("TEST.BBOX_AUG.SCALE_RANGES",),
                f"TEST.BBOX_AUG.SCALE_RANGES has ({low}, {high}); low must be below high",
            )


def _data_sets(cfg: CfgNode) -> Broken:
    for key, sentence in missing_fields(cfg.DATASETS.CATALOG):
        yield (key,), sentence
    for key, sentence in () if cfg.IMPORTS else unknown_types(cfg.DATASETS.CATALOG):
        yield (key,), sentence
    for name in ("TEST", "VAL"):
        names = cfg.DATASETS[name]
        twice = sorted({each for each in names if names.count(each) > 1})
        if twice:
            yield (f"DATASETS.{name}",), f"DATASETS.{name} names {twice[0]} twice; keep one"
