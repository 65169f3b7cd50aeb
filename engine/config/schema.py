"""What a key's value may be: its type, its allowed words, its range, its length.

A type is written as in a signature: `int`, `float`, `bool`, `str`, `tuple[int, ...]`,
`tuple[tuple[int, int], ...]`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.config.defaults import DEFAULTS

CATALOG_KEY = "DATASETS.CATALOG"
CATALOG_FIELDS = ("img_dir", "ann_file")
CATALOG_TYPE_FIELD = "type"  # may be missing
PARAM_GROUPS_KEY = "SOLVER.PARAM_GROUPS"
FREE_KEYS = (CATALOG_KEY, PARAM_GROUPS_KEY)  # mappings whose names are the user's, see `free`
DATASET_TYPES = ("CocoDataset",)  # of a data set; modules named in IMPORTS may add some

# Types that a default does not show: it is empty, or holds no element.
TYPES: dict[str, Any] = {
    "IMPORTS": tuple[str, ...],
    "DATASETS.TRAIN": tuple[str, ...],
    "DATASETS.TEST": tuple[str, ...],
    "DATASETS.VAL": tuple[str, ...],
    "SOLVER.HOOKS": tuple[str, ...],
    "SOLVER.WRITERS": tuple[str, ...],
    "SOLVER.STEPS_EPOCH": tuple[int, ...],
    "TEST.BBOX_AUG.SCALES": tuple[int, ...],
    "TEST.BBOX_AUG.SCALE_RANGES": tuple[tuple[int, int], ...],
}


@dataclass(frozen=True)
class Words:
    """Allowed words of a key. An open set may be extended by the modules named in `IMPORTS`."""

    allowed: tuple[str, ...]
    is_open: bool = False


_BODIES = tuple(f"R-{depth}-FPN{levels}" for depth in (18, 34, 50, 101, 152) for levels in ("-RETINANET", ""))

# torch.optim but for the classes that need a closure, sparse gradients or matrices only; a test
# compares.
_OPTIMIZERS = (
    *("SGD", "Adam", "AdamW", "Adadelta", "Adafactor", "Adagrad", "Adamax", "ASGD", "NAdam"),
    *("RAdam", "RMSprop", "Rprop"),
)

_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

_SAMPLERS = ("random", "ohem", "balanced")
_BOX_LOSSES = ("smooth_l1", "l1", "giou")
_EXTRACTORS = ("FPN2MLPFeatureExtractor", "FPNXconv1fcFeatureExtractor")

WORDS: dict[str, Words] = {
    "MODEL.META_ARCHITECTURE": Words(("GeneralizedRCNN",)),
    "MODEL.PIXEL_CONVENTION": Words(("inclusive", "continuous")),
    "MODEL.WEIGHT_SURGERY": Words(("", "keep_first_classes")),
    "MODEL.ANCHOR_CONVENTION": Words(("", "reference", "exact", "torchvision")),
    "MODEL.BACKBONE.CONV_BODY": Words((*_BODIES, "R-50-C4"), is_open=True),
    "MODEL.RESNETS.TRANS_FUNC": Words(("BottleneckWithFixedBatchNorm", "BottleneckWithGN"), is_open=True),
    "MODEL.RESNETS.STEM_FUNC": Words(("StemWithFixedBatchNorm", "StemWithGN"), is_open=True),
    "MODEL.RESNETS.NORM": Words(("", "FrozenBN", "BN", "SyncBN", "GN"), is_open=True),
    "MODEL.ATSS.POSITIVE_TYPE": Words(("ATSS", "SSC", "IoU", "TOPK"), is_open=True),
    "MODEL.ATSS.REGRESSION_TYPE": Words(("BOX", "POINT")),
    "MODEL.ATSS.SCORE": Words(("sqrt", "product")),
    "MODEL.DELTA_LIMIT": Words(("upper", "both")),
    "MODEL.RPN.RPN_HEAD": Words(("SingleConvRPNHead",), is_open=True),
    "MODEL.RPN.SAMPLER": Words(_SAMPLERS, is_open=True),
    "MODEL.RPN.BBOX_LOSS": Words(_BOX_LOSSES, is_open=True),
    "MODEL.ROI_HEADS.NAME": Words(("StandardROIHeads", "CascadeROIHeads")),
    "MODEL.ROI_HEADS.SAMPLER": Words(_SAMPLERS, is_open=True),
    "MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR": Words((*_EXTRACTORS, "ResNet50Conv5ROIFeatureExtractor"), is_open=True),
    "MODEL.ROI_BOX_HEAD.PREDICTOR": Words(("FPNPredictor", "FastRCNNPredictor")),
    "MODEL.ROI_BOX_HEAD.CLS_LOSS": Words(("cross_entropy", "focal"), is_open=True),
    "MODEL.ROI_BOX_HEAD.BBOX_LOSS": Words(_BOX_LOSSES, is_open=True),
    "MODEL.ROI_BOX_CASCADE_HEAD.SCORE_MEAN": Words(("logits", "probabilities"), is_open=True),
    "MODEL.RETINANET.LOSS_NORMALIZER": Words(("positives", "moving_average", "per_image"), is_open=True),
    "MODEL.FCOS.IOU_LOSS_TYPE": Words(("iou", "linear_iou", "giou"), is_open=True),
    "SOLVER.OPTIMIZER": Words(_OPTIMIZERS, is_open=True),
    "SOLVER.SCHEDULE": Words(("multistep", "cosine", "poly", "cyclic", "one_cycle", "constant"), is_open=True),
    "SOLVER.WARMUP_METHOD": Words(("constant", "linear", "exponential"), is_open=True),
    "SOLVER.VALIDATION.METRIC": Words((*_FIGURES, "loss")),
    "SOLVER.AMP.DTYPE": Words(("bfloat16", "float16")),
    "TEST.THRESHOLD_RULE": Words(("raw", "interpolated")),
    "TEST.BBOX_AUG.MERGE_TYPE": Words(("vote", "soft-vote", "nms"), is_open=True),
}

_INF = math.inf

# Both ends included; of a tuple, for each element.
RANGES: dict[str, tuple[float, float]] = {
    "SEED": (-1, 2**32 - 1),  # what NumPy takes
    "INPUT.MIN_SIZE_TRAIN": (1, _INF),
    "INPUT.MAX_SIZE_TRAIN": (1, _INF),
    "INPUT.MIN_SIZE_TEST": (1, _INF),
    "INPUT.MAX_SIZE_TEST": (1, _INF),
    "INPUT.HORIZONTAL_FLIP_PROB_TRAIN": (0, 1),
    "INPUT.VERTICAL_FLIP_PROB_TRAIN": (0, 1),
    "INPUT.BRIGHTNESS": (0, _INF),
    "INPUT.CONTRAST": (0, _INF),
    "INPUT.SATURATION": (0, _INF),
    "INPUT.HUE": (0, 0.5),
    "DATALOADER.NUM_WORKERS": (0, _INF),
    "DATALOADER.SIZE_DIVISIBILITY": (0, _INF),
    "SOLVER.MAX_ITER": (0, _INF),
    "SOLVER.MAX_EPOCH": (0, _INF),
    "SOLVER.BASE_LR": (0, _INF),
    "SOLVER.REFERENCE_BATCH": (0, _INF),
    "SOLVER.BACKBONE_LR_FACTOR": (0, _INF),
    "SOLVER.LAYER_LR_FACTOR": (0, 1),
    "SOLVER.BIAS_LR_FACTOR": (0, _INF),
    "SOLVER.DCONV_OFFSETS_LR_FACTOR": (0, _INF),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WEIGHT_DECAY": (0, _INF),
    "SOLVER.WEIGHT_DECAY_BIAS": (0, _INF),
    "SOLVER.WEIGHT_DECAY_NORM": (-1, _INF),
    "SOLVER.GAMMA": (0, _INF),
    "SOLVER.STEPS_EPOCH": (0, _INF),
    "SOLVER.FINAL_LR_FACTOR": (0, _INF),
    "SOLVER.POLY_POWER": (0, _INF),
    "SOLVER.CYCLE.NUM": (1, _INF),
    "SOLVER.CYCLE.START_FACTOR": (0, _INF),
    "SOLVER.CYCLE.RISE": (0, 1),
    "SOLVER.CYCLE.PEAK_MOMENTUM": (0, 1),
    "SOLVER.STEPS": (0, _INF),
    "SOLVER.WARMUP_FACTOR": (0, _INF),
    "SOLVER.WARMUP_ITERS": (0, _INF),
    "SOLVER.CHECKPOINT_PERIOD": (0, _INF),
    "SOLVER.IMS_PER_BATCH": (1, _INF),
    "SOLVER.KEEP_CHECKPOINTS": (0, _INF),
    "SOLVER.ACCUMULATE": (1, _INF),
    "SOLVER.CLIP_GRAD_NORM": (0, _INF),
    "SOLVER.CLIP_GRAD_VALUE": (0, _INF),
    "SOLVER.EMA_DECAY": (0, 1),
    "SOLVER.VALIDATION.PERIOD": (0, _INF),
    "SOLVER.VALIDATION.PERIOD_EPOCH": (0, _INF),
    "SOLVER.VALIDATION.PATIENCE": (0, _INF),
    "SOLVER.LOG_PERIOD": (1, _INF),
    "TEST.IMS_PER_BATCH": (1, _INF),
    "TEST.DETECTIONS_PER_IMG": (0, _INF),
    "TEST.THRESHOLD_IOU": (0, 1),
    "TEST.THRESHOLD_BETA": (0, _INF),
    "TEST.BBOX_AUG.VOTE_TH": (0, 1),
    "TEST.BBOX_AUG.SCALES": (1, _INF),
    "TEST.BBOX_AUG.MAX_SIZE": (1, _INF),
    "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": (0, 5),
    "MODEL.GROUP_NORM.EPSILON": (0, _INF),
    "MODEL.RESNETS.NUM_GROUPS": (1, _INF),
    "MODEL.RESNETS.WIDTH_PER_GROUP": (1, _INF),
    "MODEL.RESNETS.RES5_DILATION": (1, 2),
    "MODEL.RESNETS.BACKBONE_OUT_CHANNELS": (1, _INF),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": (1, _INF),
    "MODEL.RESNETS.STEM_OUT_CHANNELS": (1, _INF),
    "MODEL.RESNETS.DEFORMABLE_GROUPS": (1, _INF),
    "MODEL.ATSS.ANCHOR_SIZES": (1, _INF),
    "MODEL.ATSS.ANCHOR_STRIDES": (1, _INF),
    "MODEL.ATSS.ASPECT_RATIOS": (1e-3, 1e3),
    "MODEL.ATSS.OCTAVE": (1, _INF),
    "MODEL.ATSS.SCALES_PER_OCTAVE": (1, _INF),
    "MODEL.ATSS.NUM_CONVS": (0, _INF),
    "MODEL.ATSS.LOSS_ALPHA": (0, 1),
    "MODEL.ATSS.LOSS_GAMMA": (0, _INF),
    "MODEL.ATSS.FG_IOU_THRESHOLD": (0, 1),
    "MODEL.ATSS.BG_IOU_THRESHOLD": (0, 1),
    "MODEL.ATSS.TOPK": (1, _INF),
    "MODEL.ATSS.REG_LOSS_WEIGHT": (0, _INF),
    "MODEL.ATSS.PRIOR_PROB": (1e-9, 1 - 1e-9),
    "MODEL.ATSS.INFERENCE_TH": (0, 1),
    "MODEL.ATSS.NMS_TH": (0, 1),
    "MODEL.ATSS.PRE_NMS_TOP_N": (1, _INF),
    "MODEL.RPN.ANCHOR_SIZES": (1, _INF),
    "MODEL.RPN.ANCHOR_STRIDE": (1, _INF),
    "MODEL.RPN.ASPECT_RATIOS": (1e-3, 1e3),
    "MODEL.RPN.STRADDLE_THRESH": (-1, _INF),
    "MODEL.RPN.FG_IOU_THRESHOLD": (0, 1),
    "MODEL.RPN.BG_IOU_THRESHOLD": (0, 1),
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": (1, _INF),
    "MODEL.RPN.POSITIVE_FRACTION": (0, 1),
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": (0, _INF),
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": (0, _INF),
    "MODEL.RPN.POST_NMS_TOP_N_TRAIN": (0, _INF),
    "MODEL.RPN.POST_NMS_TOP_N_TEST": (0, _INF),
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN": (0, _INF),
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": (0, _INF),
    "MODEL.RPN.NMS_THRESH": (0, 1),
    "MODEL.RPN.MIN_SIZE": (0, _INF),
    "MODEL.RPN.BBOX_LOSS_BETA": (0, _INF),
    "MODEL.RPN.LOW_QUALITY_IOU": (0, 1),
    "MODEL.ROI_HEADS.FG_IOU_THRESHOLD": (0, 1),
    "MODEL.ROI_HEADS.BG_IOU_THRESHOLD": (0, 1),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": (1, _INF),
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": (0, 1),
    "MODEL.ROI_HEADS.SCORE_THRESH": (0, 1),
    "MODEL.ROI_HEADS.NMS": (0, 1),
    "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": (0, _INF),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": (1, _INF),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (0, _INF),
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES": (1e-3, 1),
    "MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM": (1, _INF),
    "MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM": (1, _INF),
    "MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS": (0, _INF),
    "MODEL.ROI_BOX_HEAD.DILATION": (1, _INF),
    "MODEL.ROI_BOX_HEAD.LOSS_ALPHA": (0, 1),
    "MODEL.ROI_BOX_HEAD.LOSS_GAMMA": (0, _INF),
    "MODEL.ROI_BOX_HEAD.CLS_LOSS_WEIGHT": (0, _INF),
    "MODEL.ROI_BOX_HEAD.BBOX_LOSS_WEIGHT": (0, _INF),
    "MODEL.ROI_BOX_HEAD.BBOX_LOSS_BETA": (0, _INF),
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": (0, 1),
    "MODEL.ROI_BOX_CASCADE_HEAD.LOSS_WEIGHTS": (0, _INF),
    "MODEL.ROI_BOX_CASCADE_HEAD.FEATURE_GRADIENT": (0, 1),
    "MODEL.RETINANET.ANCHOR_SIZES": (1, _INF),
    "MODEL.RETINANET.ANCHOR_STRIDES": (1, _INF),
    "MODEL.RETINANET.ASPECT_RATIOS": (1e-3, 1e3),
    "MODEL.RETINANET.OCTAVE": (1, _INF),
    "MODEL.RETINANET.SCALES_PER_OCTAVE": (1, _INF),
    "MODEL.RETINANET.NUM_CONVS": (0, _INF),
    "MODEL.RETINANET.DELTA_WEIGHTS": (1e-6, _INF),
    "MODEL.RETINANET.BBOX_REG_WEIGHT": (1e-6, _INF),
    "MODEL.RETINANET.BBOX_REG_BETA": (0, _INF),
    "MODEL.RETINANET.PRE_NMS_TOP_N": (1, _INF),
    "MODEL.RETINANET.FG_IOU_THRESHOLD": (0, 1),
    "MODEL.RETINANET.BG_IOU_THRESHOLD": (0, 1),
    "MODEL.RETINANET.LOSS_ALPHA": (0, 1),
    "MODEL.RETINANET.LOSS_GAMMA": (0, _INF),
    "MODEL.RETINANET.PRIOR_PROB": (1e-9, 1 - 1e-9),
    "MODEL.RETINANET.INFERENCE_TH": (0, 1),
    "MODEL.RETINANET.NMS_TH": (0, 1),
    "MODEL.FCOS.FPN_STRIDES": (1, _INF),
    "MODEL.FCOS.PRIOR_PROB": (1e-9, 1 - 1e-9),
    "MODEL.FCOS.INFERENCE_TH": (0, 1),
    "MODEL.FCOS.NMS_TH": (0, 1),
    "MODEL.FCOS.PRE_NMS_TOP_N": (1, _INF),
    "MODEL.FCOS.LOSS_ALPHA": (0, 1),
    "MODEL.FCOS.LOSS_GAMMA": (0, _INF),
    "MODEL.FCOS.NUM_CONVS": (0, _INF),
    "MODEL.FCOS.CENTER_SAMPLING_RADIUS": (0, _INF),
}

# Exact lengths: of what.
LENGTHS: dict[str, tuple[int, str]] = {
    "INPUT.PIXEL_MEAN": (3, "one for each channel"),
    "INPUT.PIXEL_STD": (3, "one for each channel"),
    "INPUT.MIN_SIZE_RANGE_TRAIN": (2, "low and high"),
    "MODEL.RESNETS.STAGE_WITH_DCN": (4, "one for each stage"),
    "MODEL.RETINANET.DELTA_WEIGHTS": (4, "for dx, dy, dw, dh"),
    "MODEL.ROI_HEADS.BBOX_REG_WEIGHTS": (4, "for dx, dy, dw, dh"),
}

# Tuples that may not be empty: a detector or a transform without them is none.
NOT_EMPTY = (
    "INPUT.MIN_SIZE_TRAIN",
    "MODEL.ATSS.ANCHOR_SIZES",
    "MODEL.ATSS.ASPECT_RATIOS",
    "MODEL.RETINANET.ANCHOR_SIZES",
    "MODEL.RETINANET.ASPECT_RATIOS",
    "MODEL.RPN.ANCHOR_SIZES",
    "MODEL.RPN.ANCHOR_STRIDE",
    "MODEL.RPN.ASPECT_RATIOS",
    "MODEL.ROI_BOX_HEAD.POOLER_SCALES",
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS",
)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a tree; a free mapping counts as one value.

    Example:
        >>> list(leaves({"A": {"B": 1}, "C": 2}))
        [('A.B', 1), ('C', 2)]
    """
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and key not in FREE_KEYS:
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def type_of(key: str, value: Any) -> Any:
    """The declared type of a key; of a key that a user's code added, the type of its present value
    `value`.

    None when nothing tells it: such a key takes any value.
    """
    return TYPES.get(key) or _inferred(_defaults().get(key, value))


@functools.cache
def _defaults() -> dict[str, Any]:
    return dict(leaves(DEFAULTS))


def _inferred(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        element = _inferred(value[0]) if value else None
        return None if element is None else tuple[element, ...]
    return type(value) if type(value) in (bool, int, float, str) else None
