"""The rules about two-stage detectors (`MODEL.RPN_ONLY: False`)."""

from __future__ import annotations

from yacs.config import CfgNode

from engine.config.comparisons import Broken, equal_lengths, equal_strides, not_above
from engine.config.parts import body_name, dense_flags, dense_name, neck_name

_OR_ONE_STAGE = "or MODEL.RPN_ONLY: True for a one-stage detector"


def two_stage(tree: CfgNode, level_strides: tuple[int, ...] | None) -> Broken:
    """The rules that a two-stage detector breaks.

    Args:
        level_strides: of the pyramid's levels, None where they are not known.
    """
    stage = dense_name(tree)
    if stage in ("RETINANET", "FCOS"):
        flag = dense_flags(tree).get(stage)
        yield (
            (flag or "MODEL.DENSE.NAME", "MODEL.RPN_ONLY"),
            f"{flag or f'MODEL.DENSE.NAME {stage}'} cannot propose boxes to a second stage; write MODEL.RPN_ONLY: True",
        )
        return
    yield from _parts(tree, stage)
    if not stage:
        yield from _rpn(tree, level_strides)
    yield from _pooler(tree, level_strides)
    if tree.MODEL.ROI_HEADS.NAME == "CascadeROIHeads":
        yield from _cascade(tree)


def _parts(tree: CfgNode, stage: str) -> Broken:
    extractor = tree.MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR
    if extractor.startswith("ResNet50Conv5"):
        yield (
            ("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "MODEL.RPN_ONLY"),
            f"MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR {extractor} (the default) belongs to bodies without a pyramid; "
            f"write FPN2MLPFeatureExtractor, {_OR_ONE_STAGE}",
        )
    elif tree.MODEL.ROI_BOX_HEAD.PREDICTOR == "FastRCNNPredictor":
        yield (
            ("MODEL.ROI_BOX_HEAD.PREDICTOR", "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR"),
            "MODEL.ROI_BOX_HEAD.PREDICTOR FastRCNNPredictor (the default) belongs to bodies without a pyramid; write "
            "FPNPredictor",
        )
    for key, is_on in (
        ("MODEL.RPN.USE_FPN", tree.MODEL.RPN.USE_FPN or bool(stage)),  # dense stages do not read it
        ("MODEL.ROI_HEADS.USE_FPN", tree.MODEL.ROI_HEADS.USE_FPN),
    ):
        if not is_on:
            yield (key,), f"{key} is False, but every body has a pyramid; write True, {_OR_ONE_STAGE}"
    yield from not_above(tree, "MODEL.ROI_HEADS.BG_IOU_THRESHOLD", "MODEL.ROI_HEADS.FG_IOU_THRESHOLD")


def _rpn(tree: CfgNode, level_strides: tuple[int, ...] | None) -> Broken:
    sizes, strides = tree.MODEL.RPN.ANCHOR_SIZES, tree.MODEL.RPN.ANCHOR_STRIDE
    if len(sizes) % len(strides):
        yield (
            ("MODEL.RPN.ANCHOR_SIZES", "MODEL.RPN.ANCHOR_STRIDE"),
            f"MODEL.RPN.ANCHOR_SIZES has {len(sizes)} entries and MODEL.RPN.ANCHOR_STRIDE has {len(strides)}; "
            "each level needs the same number of sizes",
        )
    yield from equal_strides(tree, "MODEL.RPN.ANCHOR_STRIDE", level_strides)
    yield from not_above(tree, "MODEL.RPN.BG_IOU_THRESHOLD", "MODEL.RPN.FG_IOU_THRESHOLD")


def _pooler(tree: CfgNode, level_strides: tuple[int, ...] | None) -> Broken:
    scales = tree.MODEL.ROI_BOX_HEAD.POOLER_SCALES
    strides = tuple(round(1 / scale) for scale in scales)
    if level_strides and strides != level_strides[: len(strides)]:
        first_scales = ", ".join(str(1 / stride) for stride in level_strides[:4])
        yield (
            ("MODEL.ROI_BOX_HEAD.POOLER_SCALES", "MODEL.BACKBONE.CONV_BODY", "MODEL.NECK.NAME"),
            f"MODEL.ROI_BOX_HEAD.POOLER_SCALES is {scales}, but the first levels of "
            f"{body_name(tree)}-{neck_name(tree)} have the scales ({first_scales}); write these or the first of them",
        )


def _cascade(tree: CfgNode) -> Broken:
    yield from equal_lengths(tree, "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", "MODEL.ROI_BOX_CASCADE_HEAD.IOUS")
    yield from equal_lengths(tree, "MODEL.ROI_BOX_CASCADE_HEAD.LOSS_WEIGHTS", "MODEL.ROI_BOX_CASCADE_HEAD.IOUS")
    key = "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"
    for weights in tree.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS:
        if len(weights) != 4 or min(weights) <= 0:
            yield (key,), f"{key} has {weights}; it must be four numbers above 0, for dx, dy, dw, dh"
