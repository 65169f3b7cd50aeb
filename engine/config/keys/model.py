"""Keys of the detector as a whole, of its body and of its neck."""

from __future__ import annotations

from pathlib import Path

from engine.config.declaration import MAX_CHANNELS, key

_BODIES = (
    *("R-18", "R-34", "R-50", "R-101", "R-152", "EfficientNet-Lite0", "EfficientNet-Lite1", "EfficientNet-Lite2"),
    *("MobileNetV3-Large", "MobileNetV3-Small", "ConvNeXt-Tiny", "ConvNeXt-Small", "Swin-T", "Swin-S", "Swin-V2-T"),
)
_FAMILIES = ("timm/",)
_NECKS = ("FPN-RETINANET", "FPN")
_OWN_NECKS = ("PAFPN", "DyHead")
"""Those for which the reference, and so `MODEL.BACKBONE.CONV_BODY`, has no word."""

GROUPS = {"MODEL.GROUP_NORM": "Group norm, wherever it is used; other values than the defaults are not supported yet."}

# One key after another as in a table, so that a search for a key shows its default too.
# fmt: off
KEYS = [
    key("MODEL.META_ARCHITECTURE", "GeneralizedRCNN", "The whole detector; there is one.", words=("GeneralizedRCNN",)),
    key("MODEL.RPN_ONLY", False, "True: a one-stage (dense) detector; False: a second stage (ROI_HEADS) refines the "
        "boxes of the first one."),
    key("MODEL.ATSS_ON", False, "The dense stage is ATSS."),
    key("MODEL.FCOS_ON", False, "The dense stage is FCOS."),
    key("MODEL.RETINANET_ON", False, "The dense stage is RetinaNet."),
    key("MODEL.DEVICE", "cuda", "cuda, cuda:N or cpu; without a GPU the engine warns and uses the CPU."),
    key("MODEL.WEIGHT", "", 'Initial weights: catalog://NAME, torchvision://NAME, timm://NAME, package://NAME/path '
        '(a file of an installed pip package), a URL or a file; "" trains from scratch.', type=Path),
    key("MODEL.WEIGHT_SURGERY", "", "What to do to the weights before they are matched: \"keep_first_classes\" slices "
        "a head of more classes (such as COCO's 80) to this model's number; \"\" leaves them.", ours=True,
        words=("", "keep_first_classes"), registry="engine.checkpoint.heads.SURGERIES"),
    key("MODEL.USE_SYNCBN", False, "Replace trainable batch norms by ones that average over all processes."),
    key("MODEL.CLS_AGNOSTIC_BBOX_REG", False, "Two-stage: one box for all classes instead of one per class."),
    key("MODEL.PIXEL_CONVENTION", "inclusive", "inclusive: widths are x2 - x1 + 1, as the reference's weights expect; "
        "continuous: x2 - x1.", ours=True, words=("inclusive", "continuous")),
    key("MODEL.DELTA_LIMIT", "upper", 'Limits of the deltas dw and dh of boxes: "upper" is log(1000 / 16) above only, '
        'as everywhere except in mmdetection, which limits them below as well ("both").', ours=True,
        words=("upper", "both")),
    key("MODEL.ANCHOR_CONVENTION", "", 'Where anchors lie and how they are rounded: reference, exact (mmdetection, '
        'detectron2), torchvision; "" means reference with inclusive pixels and exact with continuous ones.', ours=True,
        words=("", "reference", "exact", "torchvision")),
    key("MODEL.CHANNELS_LAST", True, "Keep feature maps in channels-last memory, which is faster; the numbers agree.",
        ours=True),
    key("MODEL.BACKBONE.CONV_BODY", "R-50-C4", "The reference's spelling of BACKBONE.NAME and NECK.NAME in one: R-18, "
        "R-34, R-50, R-101, R-152 or another body of BACKBONE.NAME, then -FPN-RETINANET (levels P3..P7) or -FPN "
        "(P2..P6). The default is the reference's, has no pyramid and cannot be built.",
        words=(*(f"{body}-{neck}" for body in _BODIES for neck in _NECKS), "R-50-C4"),
        registry="engine.modeling.bodies.BODIES", endings=("-FPN-RETINANET", "-FPN"), families=_FAMILIES),
    key("MODEL.BACKBONE.NAME", "", 'The body; "" means the one in CONV_BODY. timm/NAME is a model of the package timm.',
        ours=True, words=("", *_BODIES), registry="engine.modeling.bodies.BODIES", families=_FAMILIES),
    key("MODEL.BACKBONE.ARGS", {}, "Arguments of the body by name: any plain values. They take precedence over "
        "MODEL.RESNETS, where R-18 to R-152 have their keys.", ours=True),
    key("MODEL.BACKBONE.FREEZE_CONV_BODY_AT", 2, "This many parts of the body, counted from the image, stay "
        "fixed: weights, statistics and outputs. Built-in bodies have five parts, the stem and four stages; others "
        "count their own. 0 trains all.", between=(0, 100)),
    key("MODEL.BACKBONE.USE_GN", False, "Announces group norm in the body and sets nothing, as in the reference: "
        "STEM_FUNC and TRANS_FUNC decide."),
    key("MODEL.NECK.NAME", "", "What makes the levels of the pyramid from the body's maps: FPN (levels P2..P6), "
        "FPN-RETINANET (P3..P7), PAFPN (P3..P7, with a bottom-up path), DyHead (FPN-RETINANET or PAFPN, then attention "
        "over space, levels and channels); \"\" means the one in BACKBONE.CONV_BODY.", ours=True,
        words=("", *_NECKS, *_OWN_NECKS), registry="engine.modeling.necks.NECKS"),
    key("MODEL.NECK.ARGS", {}, "Arguments of the neck by name: any plain values. They take precedence over MODEL.FPN, "
        "where the built-in necks have their keys.", ours=True),
    key("MODEL.FPN.USE_GN", False, "Group norm after the pyramid's convolutions."),
    key("MODEL.FPN.USE_RELU", False, "ReLU after the pyramid's convolutions."),
    key("MODEL.FPN.RELU_BEFORE_P7", True, "P7 comes from relu(P6), as in RetinaNet; mmdetection uses P6 itself "
        "(False).", ours=True),
    key("MODEL.GROUP_NORM.DIM_PER_GP", -1, "Channels per group, or -1.", between=(-1, MAX_CHANNELS)),
    key("MODEL.GROUP_NORM.NUM_GROUPS", 32, "Groups, or -1.", between=(-1, MAX_CHANNELS)),
    key("MODEL.GROUP_NORM.EPSILON", 1e-5, "Added to the variance.", between=(0, 1)),
    key("MODEL.RESNETS.NUM_GROUPS", 1, "Groups of the 3x3 convolutions; more than 1 is a ResNeXt.",
        between=(1, MAX_CHANNELS)),
    key("MODEL.RESNETS.WIDTH_PER_GROUP", 64, "Channels of each group in the first stage.", between=(1, MAX_CHANNELS)),
    key("MODEL.RESNETS.STRIDE_IN_1X1", True, "The stride of a stage is in its first 1x1 convolution (MSRA weights) or "
        "in the 3x3 one (others)."),
    # The engine reads the norm at the end of both names and nothing else, so that a module of IMPORTS has nothing to
    # add to them: a norm of its own is named by MODEL.RESNETS.NORM.
    key("MODEL.RESNETS.TRANS_FUNC", "BottleneckWithFixedBatchNorm", "The reference's name of the block, which tells "
        "its norm; NORM has precedence.",
        words=("BottleneckWithFixedBatchNorm", "BottleneckWithBatchNorm", "BottleneckWithGN")),
    key("MODEL.RESNETS.STEM_FUNC", "StemWithFixedBatchNorm", "The reference's name of the stem; its norm must be the "
        "one of TRANS_FUNC.", words=("StemWithFixedBatchNorm", "StemWithBatchNorm", "StemWithGN")),
    key("MODEL.RESNETS.NORM", "", 'Norm of stem and blocks; "" means the one in STEM_FUNC and TRANS_FUNC.', ours=True,
        words=("", "FrozenBN", "BN", "SyncBN", "GN"), registry="engine.layers.norm.NORMS"),
    key("MODEL.RESNETS.RES5_DILATION", 1, "Dilation of the last stage; 2 keeps its resolution.", between=(1, 2)),
    key("MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 1024, "Channels of the pyramid's levels.", between=(1, MAX_CHANNELS)),
    key("MODEL.RESNETS.RES2_OUT_CHANNELS", 256, "Output channels of the first stage; each later one has twice as many.",
        between=(1, MAX_CHANNELS)),
    key("MODEL.RESNETS.STEM_OUT_CHANNELS", 64, "Output channels of the stem.", between=(1, MAX_CHANNELS)),
    key("MODEL.RESNETS.STAGE_WITH_DCN", (False, False, False, False), "Which of the four stages have deformable 3x3 "
        "convolutions.", length=(4, "one for each stage")),
    key("MODEL.RESNETS.WITH_MODULATED_DCN", False, "Deformable convolutions have masks (version 2), not only offsets."),
    key("MODEL.RESNETS.DEFORMABLE_GROUPS", 1, "Groups of channels that have offsets of their own.",
        between=(1, MAX_CHANNELS)),
]
# fmt: on
