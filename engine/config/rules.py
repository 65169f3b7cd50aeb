"""Rules between keys, a sentence each; they are checked once everything is merged. See `comparisons` for their form."""

from __future__ import annotations

import re

from yacs.config import CfgNode

from engine.config.comparisons import Broken, equal_lengths, equal_strides, not_above, value_of
from engine.config.parts import DENSE_FLAGS, body_name, dense_flags, dense_name, is_built_in, neck_name
from engine.config.rules_data import augmentation, data_sets, image_values, sampling, thresholds, tiling
from engine.config.rules_solver import solver, validation
from engine.config.rules_two_stage import two_stage

_DENSE = (*DENSE_FLAGS.values(), "MODEL.DENSE.NAME")
_BACKBONE = ("MODEL.BACKBONE.CONV_BODY", "MODEL.BACKBONE.NAME", "MODEL.NECK.NAME")
_STRIDES_OF_STAGE = {
    "ATSS": "MODEL.ATSS.ANCHOR_STRIDES",
    "RETINANET": "MODEL.RETINANET.ANCHOR_STRIDES",
    "FCOS": "MODEL.FCOS.FPN_STRIDES",
}
_FROM_P3 = (8, 16, 32, 64, 128)
_STRIDES_OF_NECK = {"FPN": (4, 8, 16, 32, 64), "FPN-RETINANET": _FROM_P3, "PAFPN": _FROM_P3, "DyHead": _FROM_P3}


def broken_rules(tree: CfgNode, is_complete: bool) -> Broken:
    """The rules that a tree breaks.

    Args:
        is_complete: the tree is meant to describe a detector. The default tree is not: it is the reference's, whose
            detector (R-50-C4) cannot be built.
    """
    if is_complete or dense_name(tree):
        strides = _level_strides(tree)
        yield from _one_detector(tree)
        yield from _pyramid(tree)
        for stage, key in _STRIDES_OF_STAGE.items():
            if stage in (*dense_flags(tree), tree.MODEL.DENSE.NAME):
                yield from equal_strides(tree, key, strides)
        if not tree.MODEL.RPN_ONLY:
            yield from two_stage(tree, strides)
    yield from _arguments(tree)
    yield from _towers(tree)
    yield from _device(tree)
    yield from image_values(tree)
    yield from _norms(tree)
    yield from _group_sizes(tree)
    yield from _class_counts(tree)
    yield from _anchors(tree)
    yield from solver(tree)
    yield from validation(tree)
    yield from augmentation(tree)
    yield from thresholds(tree)
    yield from tiling(tree)
    yield from data_sets(tree)
    yield from sampling(tree)


def _one_detector(tree: CfgNode) -> Broken:
    name, flags = tree.MODEL.DENSE.NAME, dense_flags(tree)
    if len(flags) > 1:
        yield _DENSE, f"{' and '.join(flags.values())} are on at once; keep one of them"
    elif name and flags and name not in flags:
        (flag,) = flags.values()
        yield _DENSE, f"MODEL.DENSE.NAME is {name}, but {flag} is on; keep one of them"
    elif tree.MODEL.RPN_ONLY and not name and not flags:
        yield (*_DENSE, "MODEL.RPN_ONLY"), "no detector is on; write MODEL.ATSS_ON: True"


def _pyramid(tree: CfgNode) -> Broken:
    if tree.MODEL.BACKBONE.CONV_BODY == "R-50-C4" and not tree.MODEL.NECK.NAME:
        advice = "MODEL.NECK.NAME: FPN-RETINANET" if tree.MODEL.BACKBONE.NAME else "R-50-FPN-RETINANET"
        yield (
            (*_BACKBONE, *_DENSE),
            f"MODEL.BACKBONE.CONV_BODY R-50-C4 (the default) has no pyramid of levels; write {advice}",
        )


def _level_strides(tree: CfgNode) -> tuple[int, ...] | None:
    """Strides of the pyramid's levels; None where arguments or a module of the user's may have changed them."""
    is_ours = is_built_in("MODEL.BACKBONE.NAME", body_name(tree)) and is_built_in("MODEL.NECK.NAME", neck_name(tree))
    has_arguments = bool(tree.MODEL.BACKBONE.ARGS or tree.MODEL.NECK.ARGS)
    if tree.IMPORTS or not is_ours or has_arguments or tree.MODEL.RESNETS.RES5_DILATION != 1:
        return None
    return _STRIDES_OF_NECK.get(neck_name(tree))


def _arguments(tree: CfgNode) -> Broken:
    """The dense stages that have a flag have keys instead of free arguments."""
    stage = dense_name(tree)
    if tree.MODEL.DENSE.ARGS and (not stage or stage in DENSE_FLAGS):
        yield (
            ("MODEL.DENSE.ARGS", *(f"MODEL.DENSE.ARGS.{name}" for name in tree.MODEL.DENSE.ARGS)),
            "MODEL.DENSE.ARGS is only for dense stages without keys of their own; "
            f"the keys of {stage or 'the RPN'} are in MODEL.{stage or 'RPN'}",
        )


def _towers(tree: CfgNode) -> Broken:
    kernel = tree.MODEL.DENSE.TOWER_KERNEL
    if kernel % 2 == 0:
        key = "MODEL.DENSE.TOWER_KERNEL"
        yield (key,), f"{key} is {kernel}, but must be odd, or maps would change their size; write {kernel - 1}"
    stage, shared = dense_name(tree), tree.MODEL.DENSE.TOWER_SHARED
    num_convs = f"MODEL.{stage}.NUM_CONVS"
    if stage in DENSE_FLAGS and shared > value_of(tree, num_convs):
        yield (
            ("MODEL.DENSE.TOWER_SHARED", num_convs),
            f"MODEL.DENSE.TOWER_SHARED is {shared}, but {num_convs} is {value_of(tree, num_convs)}; share no more",
        )


def _device(tree: CfgNode) -> Broken:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", tree.MODEL.DEVICE):
        yield ("MODEL.DEVICE",), f"MODEL.DEVICE must be cuda, cuda:N or cpu, got {tree.MODEL.DEVICE!r}"


def _norms(tree: CfgNode) -> Broken:
    per_group, groups = tree.MODEL.GROUP_NORM.DIM_PER_GP, tree.MODEL.GROUP_NORM.NUM_GROUPS
    both = ("MODEL.GROUP_NORM.DIM_PER_GP", "MODEL.GROUP_NORM.NUM_GROUPS")
    if (per_group > 0) == (groups > 0):
        values = f"{both[0]} is {per_group} and NUM_GROUPS is {groups}"
        yield both, f"{values}; one of them must be -1 and the other positive"
    elif groups != 32:
        yield both, f"{both[1]} is {groups}, but this version supports only group norms of 32 groups; write 32"
    if tree.MODEL.GROUP_NORM.EPSILON != 1e-5:
        key = "MODEL.GROUP_NORM.EPSILON"
        yield (key,), f"{key} is {value_of(tree, key)}, but this version supports only 0.00001; write that"
    norm, stem, block = tree.MODEL.RESNETS.NORM, tree.MODEL.RESNETS.STEM_FUNC, tree.MODEL.RESNETS.TRANS_FUNC
    if not norm and stem.partition("With")[2] != block.partition("With")[2]:
        yield (
            ("MODEL.RESNETS.STEM_FUNC", "MODEL.RESNETS.TRANS_FUNC"),
            f"MODEL.RESNETS.STEM_FUNC is {stem} and TRANS_FUNC is {block}; their norms must be the same",
        )
    if tree.MODEL.BACKBONE.USE_GN and "GN" not in (norm or stem + block):
        yield (
            ("MODEL.BACKBONE.USE_GN", "MODEL.RESNETS.NORM"),
            "MODEL.BACKBONE.USE_GN is on, but the body has no group norm; write MODEL.RESNETS.NORM: GN",
        )


def _group_sizes(tree: CfgNode) -> Broken:
    """Group norms, wherever they are, have 32 groups."""
    stage = dense_name(tree)
    is_ours = is_built_in("MODEL.NECK.NAME", neck_name(tree))  # else its number of channels is not known
    num_convs = tree.MODEL[stage].NUM_CONVS if stage in _STRIDES_OF_STAGE else tree.MODEL.DENSE.ARGS.get("num_convs", 1)
    published = "" if stage == "RETINANET" and not tree.MODEL.RETINANET.USE_GN else "GN"
    has_tower_norm = stage in ("ATSS", "RETINANET", "FCOS", "GFL", "VFNET", "TOOD") and num_convs != 0
    has_tower_norm &= (tree.MODEL.DENSE.TOWER_NORM or published) == "GN"
    head_norm = tree.MODEL.ROI_BOX_HEAD.NORM or ("GN" if tree.MODEL.ROI_BOX_HEAD.USE_GN else "")
    has_head_norm = not tree.MODEL.RPN_ONLY and head_norm == "GN"
    extractor = tree.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR
    for key, has_norm in (
        ("MODEL.RESNETS.BACKBONE_OUT_CHANNELS", is_ours and (has_tower_norm or tree.MODEL.FPN.USE_GN)),
        ("MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", has_head_norm and extractor == "FPN2MLPFeatureExtractor"),
        ("MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM", has_head_norm and extractor == "FPNXconv1fcFeatureExtractor"),
    ):
        channels = value_of(tree, key)
        if has_norm and channels % 32:
            yield (key,), f"{key} is {channels}, but the group norms behind it have 32 groups; write a multiple of 32"


def _class_counts(tree: CfgNode) -> Broken:
    for key in (
        "MODEL.ATSS.NUM_CLASSES",
        "MODEL.RETINANET.NUM_CLASSES",
        "MODEL.FCOS.NUM_CLASSES",
        "MODEL.DENSE.NUM_CLASSES",
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES",
    ):
        count = value_of(tree, key)
        if count < 0 or count == 1:
            advice = "2 for one class, or 0 to take them from the data set"
            yield (key,), f"{key} is {count}; it counts the foreground classes + 1: {advice}"


def _anchors(tree: CfgNode) -> Broken:
    yield from equal_lengths(tree, "MODEL.ATSS.ANCHOR_SIZES", "MODEL.ATSS.ANCHOR_STRIDES")
    yield from not_above(tree, "MODEL.ATSS.BG_IOU_THRESHOLD", "MODEL.ATSS.FG_IOU_THRESHOLD")
    yield from equal_lengths(tree, "MODEL.RETINANET.ANCHOR_SIZES", "MODEL.RETINANET.ANCHOR_STRIDES")
    yield from not_above(tree, "MODEL.RETINANET.BG_IOU_THRESHOLD", "MODEL.RETINANET.FG_IOU_THRESHOLD")
