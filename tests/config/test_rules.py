from __future__ import annotations

import pytest

from engine.config import get_cfg
from engine.errors import InputError

BROKEN = {
    "two dense stages": (
        "  RETINANET_ON: True\n",
        "6: MODEL.ATSS_ON and MODEL.RETINANET_ON are on at once; keep one of them",
    ),
    "lengths": (
        "  ATSS:\n    ANCHOR_SIZES: [64, 128]\n",
        "7: MODEL.ATSS.ANCHOR_SIZES has 2 entries and MODEL.ATSS.ANCHOR_STRIDES has 5; the lengths must be equal",
    ),
    "strides": (
        "  ATSS:\n    ANCHOR_STRIDES: [4, 8, 16, 32, 64]\n",
        "7: MODEL.ATSS.ANCHOR_STRIDES is (4, 8, 16, 32, 64), but the levels of "
        "R-50-FPN-RETINANET have the strides (8, 16, 32, 64, 128); write these",
    ),
    "thresholds": (
        "  ATSS:\n    BG_IOU_THRESHOLD: 0.6\n",
        "7: MODEL.ATSS.BG_IOU_THRESHOLD 0.6 must not exceed MODEL.ATSS.FG_IOU_THRESHOLD 0.5",
    ),
    "one class": (
        "  ATSS:\n    NUM_CLASSES: 1\n",
        "7: MODEL.ATSS.NUM_CLASSES is 1; it counts the foreground classes + 1: "
        "2 for one class, or 0 to take them from the data set",
    ),
    "stages": (
        "  RESNETS:\n    STAGE_WITH_DCN: (False, True)\n",
        "7: MODEL.RESNETS.STAGE_WITH_DCN must have 4 entries (one for each stage), got (False, True)",
    ),
    "groups and channels": (
        "  GROUP_NORM:\n    DIM_PER_GP: 8\n",
        "7: MODEL.GROUP_NORM.DIM_PER_GP is 8 and NUM_GROUPS is 32; one of them must be -1 and the other positive",
    ),
    "groups": (
        "  GROUP_NORM:\n    NUM_GROUPS: 16\n",
        "7: MODEL.GROUP_NORM.NUM_GROUPS is 16, but this version supports only group norms of 32 groups; write 32",
    ),
    "two norms": (
        "  RESNETS:\n    STEM_FUNC: StemWithGN\n",
        "7: MODEL.RESNETS.STEM_FUNC is StemWithGN and TRANS_FUNC is BottleneckWithFixedBatchNorm; "
        "their norms must be the same",
    ),
    "channels of a tower": (
        "  RESNETS:\n    BACKBONE_OUT_CHANNELS: 48\n",
        "7: MODEL.RESNETS.BACKBONE_OUT_CHANNELS is 48, but the group norms behind it have 32 groups; "
        "write a multiple of 32",
    ),
    "device": ("  DEVICE: gpu\n", "6: MODEL.DEVICE must be cuda, cuda:N or cpu, got 'gpu'"),
    "range 0..1, means of 0..255": (
        "INPUT:\n  TO_BGR255: False\n",
        "7: INPUT.TO_BGR255 false means RGB in 0..1, but INPUT.PIXEL_MEAN is "
        "(102.9801, 115.9465, 122.7717), in 0..255; divide it by 255 and put red first, "
        "and PIXEL_STD likewise",
    ),
    "means of three channels for one": (
        "INPUT:\n  CHANNELS: 1\n  PIXEL_STD: [1.0]\n",
        "7: INPUT.PIXEL_MEAN has 3 values, but INPUT.CHANNELS is 1; write one for each channel, such as (113.899,)",
    ),
    "one mean for three channels": (
        "INPUT:\n  PIXEL_MEAN: [114.0]\n",
        "7: INPUT.PIXEL_MEAN has 1 value, but INPUT.CHANNELS is 3; write one for each channel, such as "
        "(114.0, 114.0, 114.0)",
    ),
    "deviations of three channels for 20": (
        f"INPUT:\n  CHANNELS: 20\n  PIXEL_MEAN: {[1.5] * 20}\n",
        "7: INPUT.PIXEL_STD has 3 values, but INPUT.CHANNELS is 20; write one for each channel",
    ),
    "colours of grey images": (
        "INPUT:\n  CHANNELS: 1\n  PIXEL_MEAN: [114.0]\n  PIXEL_STD: [1.0]\n  BRIGHTNESS: 0.2\n  HUE: 0.1\n",
        "11: INPUT.HUE is 0.1, but images of 1 channel (INPUT.CHANNELS) have no colours; write INPUT.HUE 0.0",
    ),
    "saturation of four channels": (
        "INPUT:\n  CHANNELS: 4\n  PIXEL_MEAN: [1.5, 2, 2, 2]\n  PIXEL_STD: [1, 1, 1, 1]\n  SATURATION: 0.2\n",
        "10: INPUT.SATURATION is 0.2, but images of 4 channels (INPUT.CHANNELS) have no colours; "
        "write INPUT.SATURATION 0.0",
    ),
    "range 0..255, means of 0..1": (
        "INPUT:\n  PIXEL_MEAN: [0.485, 0.456, 0.406]\n",
        "7: INPUT.TO_BGR255 true means BGR in 0..255, but INPUT.PIXEL_MEAN is "
        "(0.485, 0.456, 0.406), in 0..1; multiply it by 255 and put blue first, "
        "or write TO_BGR255: False",
    ),
    "division by zero": (
        "INPUT:\n  PIXEL_STD: [0, 1, 1]\n",
        "7: INPUT.PIXEL_STD is (0.0, 1.0, 1.0); it must be above 0",
    ),
    "a range of values": (
        "INPUT:\n  VALUE_RANGE: [4095, 0]\n",
        "7: INPUT.VALUE_RANGE is (4095.0, 0.0); it must be (low, high) with low < high, or () to measure it",
    ),
    "one end of a range of values": (
        "INPUT:\n  VALUE_RANGE: [4095]\n",
        "7: INPUT.VALUE_RANGE is (4095.0,); it must be (low, high) with low < high, or () to measure it",
    ),
    "sizes": (
        "INPUT:\n  MIN_SIZE_RANGE_TRAIN: [800, 640]\n",
        "7: INPUT.MIN_SIZE_RANGE_TRAIN is (800, 640); it must be (low, high) with 0 < low <= high, or (-1, -1) for off",
    ),
    "steps": ("SOLVER:\n  STEPS: [20, 10]\n", "7: SOLVER.STEPS must increase, got (20, 10)"),
    "scales": (
        "TEST:\n  BBOX_AUG:\n    SCALES: [100, 200]\n    SCALE_RANGES: [[1, 2]]\n",
        "9: TEST.BBOX_AUG.SCALE_RANGES has 1 entries and TEST.BBOX_AUG.SCALES has 2; "
        "write one (low, high) for each scale, or () for none",
    ),
    "scale range": (
        "TEST:\n  BBOX_AUG:\n    SCALES: [100]\n    SCALE_RANGES: [[2, 1]]\n",
        "9: TEST.BBOX_AUG.SCALE_RANGES has (2, 1); low must be below high",
    ),
    "a type of data set": (
        "DATASETS:\n  CATALOG:\n    mine: {img_dir: a, ann_file: b, type: CocoDataSet}\n",
        "8: DATASETS.CATALOG.mine.type must be CocoDataset, or registered by a module of IMPORTS, got 'CocoDataSet'; "
        "did you mean CocoDataset?",
    ),
    "an unregistered hook": (
        "SOLVER:\n  HOOKS: [Timer]\n",
        "7: SOLVER.HOOKS entries must be registered by a module of IMPORTS, got 'Timer'",
    ),
    "a data set twice": (
        "DATASETS:\n  TEST: [a, a]\n",
        "7: DATASETS.TEST names a twice; keep one",
    ),
    "a validation on nothing": (
        "SOLVER:\n  VALIDATION:\n    PERIOD: 100\n",
        "8: SOLVER.VALIDATION.PERIOD is set, but DATASETS.VAL names no data set to validate on",
    ),
    "two periods": (
        "DATASETS: {VAL: [a]}\nSOLVER: {VALIDATION: {PERIOD: 100, PERIOD_EPOCH: 1}}\n",
        "7: SOLVER.VALIDATION.PERIOD and SOLVER.VALIDATION.PERIOD_EPOCH are both set; keep one of them",
    ),
    "patience without a period": (
        "DATASETS: {VAL: [a]}\nSOLVER: {VALIDATION: {PATIENCE: 3}}\n",
        "7: SOLVER.VALIDATION.PATIENCE counts validations, but there is only one, at the end; set "
        "SOLVER.VALIDATION.PERIOD",
    ),
    "best by a loss that is not computed": (
        "SOLVER: {VALIDATION: {METRIC: loss, LOSS: False}}\n",
        "6: SOLVER.VALIDATION.METRIC is loss, but SOLVER.VALIDATION.LOSS is off; write LOSS: True",
    ),
    "a figure's slip": (
        "SOLVER:\n  VALIDATION:\n    METRIC: AP500\n",
        "8: SOLVER.VALIDATION.METRIC must be one of AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, "
        "loss, got 'AP500'; did you mean AP50?",
    ),
    "an optimizer's slip": (
        "SOLVER:\n  OPTIMIZER: AdmaW\n",
        "7: SOLVER.OPTIMIZER must be one of SGD, Adam, AdamW, Adadelta, Adafactor, Adagrad, "
        "Adamax, ASGD, NAdam, RAdam, RMSprop, Rprop, or registered by a module of IMPORTS, got 'AdmaW'; "
        "did you mean AdamW?",
    ),
    "number of detections": (
        "TEST: {DETECTIONS_PER_IMG: -5}\n",
        "6: TEST.DETECTIONS_PER_IMG must be 0 or more, got -5",
    ),
    "a seed too large": (
        "SEED: 4294967296\n",
        "6: SEED must be between -1 and 4294967295, got 4294967296",
    ),
    "an unknown architecture": (
        "  META_ARCHITECTURE: Mine\nIMPORTS: [my.detector]\n",
        "6: MODEL.META_ARCHITECTURE must be GeneralizedRCNN, got 'Mine'",
    ),
    "a way to merge": (
        "TEST:\n  BBOX_AUG:\n    MERGE_TYPE: softvote\n",
        "8: TEST.BBOX_AUG.MERGE_TYPE must be one of vote, soft-vote, nms, or registered by a module of IMPORTS, "
        "got 'softvote'; did you mean soft-vote?",
    ),
}


@pytest.mark.parametrize("text, expected", BROKEN.values(), ids=BROKEN)
def test_broken_rule_is_answered_in_one_line(answer, text, expected):
    assert answer(text) == f"my.yaml:{expected}"


@pytest.mark.parametrize(
    "head, expected",
    [
        (
            "MODEL:\n  RPN_ONLY: True\n  RETINANET_ON: True\n  BACKBONE: {CONV_BODY: R-50-FPN}\n",
            "my.yaml:4: MODEL.RETINANET.ANCHOR_STRIDES is (8, 16, 32, 64, 128), but the levels of R-50-FPN have the "
            "strides (4, 8, 16, 32, 64); write these",
        ),
        (
            "MODEL:\n  RPN_ONLY: True\n  FCOS_ON: True\n  FCOS: {FPN_STRIDES: [8]}\n"
            "  BACKBONE: {CONV_BODY: R-50-FPN-RETINANET}\n",
            "my.yaml:5: MODEL.FCOS.FPN_STRIDES is (8,), but the levels of R-50-FPN-RETINANET have the "
            "strides (8, 16, 32, 64, 128); write these",
        ),
        (
            "MODEL:\n  RPN_ONLY: True\n  RETINANET_ON: True\n  FCOS_ON: True\n"
            "  BACKBONE: {CONV_BODY: R-50-FPN-RETINANET}\n",
            "my.yaml:4: MODEL.RETINANET_ON and MODEL.FCOS_ON are on at once; keep one of them",
        ),
        (
            "MODEL:\n  RETINANET_ON: True\n  BACKBONE: {CONV_BODY: R-50-FPN-RETINANET}\n",
            "my.yaml:2: MODEL.RETINANET_ON cannot propose boxes to a second stage; write MODEL.RPN_ONLY: True",
        ),
        (
            "MODEL:\n  RPN_ONLY: True\n  BACKBONE: {CONV_BODY: R-50-FPN-RETINANET}\n",
            "my.yaml:2: no detector is on; write MODEL.ATSS_ON: True",
        ),
        (
            "MODEL:\n  RPN_ONLY: True\n  ATSS_ON: True\n",
            "my.yaml:3: MODEL.BACKBONE.CONV_BODY R-50-C4 (the default) has no pyramid of levels; "
            "write R-50-FPN-RETINANET",
        ),
    ],
)
def test_detectors_that_are_not_there(answer, head, expected):
    assert answer(head=head) == expected


def test_place_is_that_of_the_key_written_last(answer):
    text = "  ATSS:\n    ANCHOR_STRIDES: [8]\nIMPORTS: [my.backbone]\n"
    told = answer(text, ("MODEL.ATSS.ANCHOR_SIZES", "(64, 128)"))
    assert told.startswith("command line: MODEL.ATSS.ANCHOR_SIZES has 2 entries")
    told = answer(text)
    assert told.startswith("my.yaml:7: MODEL.ATSS.ANCHOR_SIZES has 5 entries")


def test_own_modules_may_add_words_and_levels(write_config):
    cfg = get_cfg()
    mine = "{mine: {img_dir: a, ann_file: b, type: Mine}}"
    solver = "SOLVER: {OPTIMIZER: Lion, HOOKS: [Timer]}"
    cfg.merge_from_file(write_config(f"{solver}\nDATASETS: {{CATALOG: {mine}}}\nIMPORTS: [my.lion]\n"))
    cfg.freeze()
    assert (cfg.SOLVER.OPTIMIZER, cfg.SOLVER.HOOKS) == ("Lion", ("Timer",))
    assert cfg.DATASETS.CATALOG.mine.type == "Mine"


def test_group_norm_must_be_there_when_announced(answer):
    body = "{USE_GN: True, CONV_BODY: R-50-FPN-RETINANET}"
    told = answer(head=f"MODEL:\n  ATSS_ON: True\n  RPN_ONLY: True\n  BACKBONE: {body}\n")
    assert told == (
        "my.yaml:4: MODEL.BACKBONE.USE_GN is on, but the body has no group norm; write MODEL.RESNETS.NORM: GN"
    )


def test_values_set_in_code_are_checked_too():
    cfg = get_cfg()
    cfg.SOLVER.STEPS = [20, 10]
    with pytest.raises(InputError, match=r"^in code: SOLVER.STEPS must increase, got \(20, 10\)$"):
        cfg.freeze()
    cfg.SOLVER.STEPS = "soon"
    with pytest.raises(InputError, match=r"^in code: SOLVER.STEPS must be a tuple of int"):
        cfg.freeze()
    cfg.SOLVER.STEPS = [10, 20]
    cfg.freeze()
    assert cfg.SOLVER.STEPS == (10, 20)
