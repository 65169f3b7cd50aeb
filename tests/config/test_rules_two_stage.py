from __future__ import annotations

import pytest

from engine.config import load_config

HEAD = """MODEL:
  RPN_ONLY: False
  BACKBONE: {CONV_BODY: R-50-FPN}
  RPN: {USE_FPN: True, ANCHOR_STRIDE: [4, 8, 16, 32, 64]}
  ROI_HEADS: {USE_FPN: True}
  ROI_BOX_HEAD:
    PREDICTOR: FPNPredictor
    FEATURE_EXTRACTOR: FPN2MLPFeatureExtractor
    POOLER_SCALES: [0.25, 0.125, 0.0625, 0.03125]
"""

BROKEN = {
    "extractor": (
        ("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "ResNet50Conv5ROIFeatureExtractor"),
        "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR ResNet50Conv5ROIFeatureExtractor (the default) belongs to bodies without "
        "a pyramid; write FPN2MLPFeatureExtractor, or MODEL.RPN_ONLY: True for a one-stage detector",
    ),
    "predictor": (
        ("MODEL.ROI_BOX_HEAD.PREDICTOR", "FastRCNNPredictor"),
        "MODEL.ROI_BOX_HEAD.PREDICTOR FastRCNNPredictor (the default) belongs to bodies without a pyramid; write "
        "FPNPredictor",
    ),
    "no pyramid": (
        ("MODEL.RPN.USE_FPN", "False"),
        "MODEL.RPN.USE_FPN is False, but every body has a pyramid; write True, or MODEL.RPN_ONLY: True for a one-stage "
        "detector",
    ),
    "sizes": (
        ("MODEL.RPN.ANCHOR_SIZES", "(32, 64)"),
        "MODEL.RPN.ANCHOR_SIZES has 2 entries and MODEL.RPN.ANCHOR_STRIDE has 5; "
        "each level needs the same number of sizes",
    ),
    "strides": (
        ("MODEL.RPN.ANCHOR_STRIDE", "(8, 16, 32, 64, 128)"),
        "MODEL.RPN.ANCHOR_STRIDE is (8, 16, 32, 64, 128), but the levels of R-50-FPN have the strides "
        "(4, 8, 16, 32, 64); write these",
    ),
    "pooler": (
        ("MODEL.ROI_BOX_HEAD.POOLER_SCALES", "(0.125,)"),
        "MODEL.ROI_BOX_HEAD.POOLER_SCALES is (0.125,), but the first levels of R-50-FPN have the scales "
        "(0.25, 0.125, 0.0625, 0.03125); write these or the first of them",
    ),
    "thresholds": (
        ("MODEL.RPN.BG_IOU_THRESHOLD", "0.8"),
        "MODEL.RPN.BG_IOU_THRESHOLD 0.8 must not exceed MODEL.RPN.FG_IOU_THRESHOLD 0.7",
    ),
    "thresholds of the second stage": (
        ("MODEL.ROI_HEADS.FG_IOU_THRESHOLD", "0.4"),
        "MODEL.ROI_HEADS.BG_IOU_THRESHOLD 0.5 must not exceed MODEL.ROI_HEADS.FG_IOU_THRESHOLD 0.4",
    ),
    "number of detections": (
        ("MODEL.ROI_HEADS.DETECTIONS_PER_IMG", "-1"),
        "MODEL.ROI_HEADS.DETECTIONS_PER_IMG must be 0 or more, got -1",
    ),
    "sampler": (
        ("MODEL.ROI_HEADS.SAMPLER", "OHEM"),
        "MODEL.ROI_HEADS.SAMPLER must be one of random, ohem, balanced, or registered by a module of IMPORTS, "
        "got 'OHEM'; did you mean ohem?",
    ),
}
CASCADE = {
    "stages": (
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "(0.5, 0.6)"),
        "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS has 3 entries and MODEL.ROI_BOX_CASCADE_HEAD.IOUS has 2; "
        "the lengths must be equal",
    ),
    "weights": (
        ("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", "((10, 10, 5, 5), (20, 20, 10, 10), (1, 1))"),
        "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS has (1.0, 1.0); it must be four numbers above 0, "
        "for dx, dy, dw, dh",
    ),
}


@pytest.mark.parametrize("opts, expected", BROKEN.values(), ids=BROKEN)
def test_broken_rule_is_answered(answer, opts, expected):
    assert answer(head=HEAD, opts=opts) == f"command line: {expected}"


@pytest.mark.parametrize("opts, expected", CASCADE.values(), ids=CASCADE)
def test_broken_rule_of_a_cascade(answer, opts, expected):
    opts = ("MODEL.ROI_HEADS.NAME", "CascadeROIHeads", *opts)
    assert answer(head=HEAD, opts=opts).splitlines()[0] == f"command line: {expected}"


def test_several_sizes_a_level(write_config):
    sizes = "(32, 40, 64, 80, 128, 160, 256, 320, 512, 640)"
    cfg = load_config(write_config(head=HEAD), ("MODEL.RPN.ANCHOR_SIZES", sizes))
    assert len(cfg.MODEL.RPN.ANCHOR_SIZES) == 10


def test_a_forgotten_rpn_only_is_told(answer):
    told = answer(head="MODEL:\n  ATSS_ON: True\n  BACKBONE: {CONV_BODY: R-50-FPN-RETINANET}\n")
    assert "or MODEL.RPN_ONLY: True for a one-stage detector" in told.splitlines()[0]
