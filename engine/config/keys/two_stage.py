"""Keys of two-stage detectors: first stage (RPN) and second stage (ROI heads, cascade)."""

from __future__ import annotations

from engine.config.declaration import MAX_CHANNELS, MAX_CLASSES, MAX_SIZE, key

_SAMPLERS = ("random", "ohem", "balanced")
_BOX_LOSSES = ("smooth_l1", "l1", "giou", "diou", "ciou")

GROUPS = {
    "MODEL.RPN": (
        "First stage of a two-stage detector (RPN_ONLY: False): the region proposal network, or ATSS with ATSS_ON, "
        "which then only separates objects from background; of these keys ATSS uses NMS_THRESH and "
        "FPN_POST_NMS_TOP_N_*."
    ),
    "MODEL.ROI_HEADS": "Second stage of a two-stage detector.",
    "MODEL.ROI_BOX_CASCADE_HEAD": (
        "(ours) Second stage ROI_HEADS.NAME CascadeROIHeads: several heads in sequence, each with its own entry in the "
        "tuples."
    ),
}

# One key after another as in a table, so that a search for a key shows its default too.
# fmt: off
KEYS = [
    key("MODEL.RPN.USE_FPN", False, "The first stage looks at all levels of a pyramid."),
    key("MODEL.RPN.ANCHOR_SIZES", (32, 64, 128, 256, 512), "Anchor sizes, the same number for each level: the first "
        "ones belong to the first level, and so on.", between=(1, MAX_SIZE), not_empty=True),
    key("MODEL.RPN.ANCHOR_STRIDE", (16,), "Stride of each level.", between=(1, 1024), not_empty=True),
    key("MODEL.RPN.ASPECT_RATIOS", (0.5, 1.0, 2.0), "Height / width of a cell's anchors.", between=(1e-3, 1e3),
        not_empty=True),
    key("MODEL.RPN.STRADDLE_THRESH", 0, "Anchors that leave the image by more than this are not trained on; -1 keeps "
        "all.", between=(-1, MAX_SIZE)),
    key("MODEL.RPN.FG_IOU_THRESHOLD", 0.7, "Positive from this IoU on.", between=(0, 1)),
    key("MODEL.RPN.BG_IOU_THRESHOLD", 0.3, "Negative below this IoU.", between=(0, 1)),
    key("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 256, "Anchors per image that are sampled for the losses.", at_least=1),
    key("MODEL.RPN.POSITIVE_FRACTION", 0.5, "Largest fraction of them that is positive.", between=(0, 1)),
    key("MODEL.RPN.PRE_NMS_TOP_N_TRAIN", 12000, "Proposals per level that reach the NMS in training.", at_least=0),
    key("MODEL.RPN.PRE_NMS_TOP_N_TEST", 6000, "Proposals per level that reach the NMS in testing.", at_least=0),
    key("MODEL.RPN.POST_NMS_TOP_N_TRAIN", 2000, "Proposals per level kept after the NMS in training.", at_least=0),
    key("MODEL.RPN.POST_NMS_TOP_N_TEST", 1000, "Proposals per level kept after the NMS in testing.", at_least=0),
    key("MODEL.RPN.NMS_THRESH", 0.7, "NMS drops a proposal whose IoU with a better one is larger.", between=(0, 1)),
    key("MODEL.RPN.MIN_SIZE", 0, "Proposals with a shorter side are dropped, pixels.", between=(0, MAX_SIZE)),
    key("MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN", 2000, "Proposals of all levels together kept per image in training. (The "
        "reference counts them over the images of a process.)", at_least=0),
    key("MODEL.RPN.FPN_POST_NMS_TOP_N_TEST", 2000, "Proposals of all levels kept per image in testing.", at_least=0),
    key("MODEL.RPN.RPN_HEAD", "SingleConvRPNHead", "Head of the first stage.", words=("SingleConvRPNHead",),
        registry="engine.modeling.two_stage.rpn.RPN_HEADS"),
    key("MODEL.RPN.SAMPLER", "random", "Which anchors are sampled: random, ohem (largest loss) or balanced (evenly "
        "over boxes and ranges of IoU).", ours=True, words=_SAMPLERS,
        registry="engine.modeling.two_stage.sampling.SAMPLERS"),
    key("MODEL.RPN.BBOX_LOSS", "smooth_l1", "Box loss.", ours=True, words=_BOX_LOSSES,
        registry="engine.modeling.two_stage.roi_losses.BOX_LOSSES"),
    key("MODEL.RPN.BBOX_LOSS_BETA", 1.0 / 9, "Error at which the smooth L1 loss becomes linear.",
        ours=True, at_least=0),
    key("MODEL.RPN.LOW_QUALITY_IOU", 0.0, "The best anchors of a box are positive from this IoU on, where "
        "FG_IOU_THRESHOLD is not reached; 1 is off.", ours=True, between=(0, 1)),
    key("MODEL.RPN.LOW_QUALITY_OWN", False, "Such an anchor learns the box it is best for (True, mmdetection) or the "
        "one it overlaps most itself (False).", ours=True),
    key("MODEL.RPN.COUNT_SAMPLED", True, "The losses are sums divided by the number of sampled anchors (True) or by "
        "BATCH_SIZE_PER_IMAGE per image (False, detectron2).", ours=True),
    key("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "StandardROIHeads (Faster R-CNN) or CascadeROIHeads (Cascade "
        "R-CNN, see ROI_BOX_CASCADE_HEAD).", ours=True, words=("StandardROIHeads", "CascadeROIHeads")),
    key("MODEL.ROI_HEADS.USE_FPN", False, "The second stage pools each proposal from the level that suits its size."),
    key("MODEL.ROI_HEADS.FG_IOU_THRESHOLD", 0.5, "A proposal is foreground from this IoU on. (A cascade has IOUS "
        "instead of both thresholds.)", between=(0, 1)),
    key("MODEL.ROI_HEADS.BG_IOU_THRESHOLD", 0.5, "A proposal is background below this IoU.", between=(0, 1)),
    key("MODEL.ROI_HEADS.BBOX_REG_WEIGHTS", (10.0, 10.0, 5.0, 5.0), "Factors of (dx, dy, dw, dh).",
        length=(4, "for dx, dy, dw, dh"), between=(1e-6, 1e6)),
    key("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 512, "Proposals per image sampled for the losses.", at_least=1),
    key("MODEL.ROI_HEADS.POSITIVE_FRACTION", 0.25, "Largest fraction of them that is foreground.", between=(0, 1)),
    key("MODEL.ROI_HEADS.SCORE_THRESH", 0.05, "Detections score more than this.", between=(0, 1)),
    key("MODEL.ROI_HEADS.NMS", 0.5, "NMS drops a box whose IoU with a better one of its class is larger.",
        between=(0, 1)),
    key("MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 100, "Most detections kept per image; 0: no limit.", at_least=0),
    key("MODEL.ROI_HEADS.SAMPLER", "random", "Which proposals are sampled: random, ohem (largest loss) or balanced "
        "(evenly over boxes and ranges of IoU).", ours=True, words=_SAMPLERS,
        registry="engine.modeling.two_stage.sampling.SAMPLERS"),
    key("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT", True, "Annotated boxes join the proposals in training.", ours=True),
    key("MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "ResNet50Conv5ROIFeatureExtractor", "What turns a pooled proposal into "
        "a vector: FPN2MLPFeatureExtractor (two layers) or FPNXconv1fcFeatureExtractor (convolutions and a layer). The "
        "default is the reference's and cannot be built.",
        words=("FPN2MLPFeatureExtractor", "FPNXconv1fcFeatureExtractor", "ResNet50Conv5ROIFeatureExtractor"),
        registry="engine.modeling.two_stage.box_head.FEATURE_EXTRACTORS"),
    key("MODEL.ROI_BOX_HEAD.PREDICTOR", "FastRCNNPredictor", "What turns the vector into logits and deltas: "
        "FPNPredictor. The default is the reference's and cannot be built.",
        words=("FPNPredictor", "FastRCNNPredictor")),
    key("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 14, "Height and width of a pooled proposal, cells.", between=(1, 256)),
    key("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 0, "Samples along each side of a cell; 0 adapts to the proposal's "
        "size.", between=(0, 64)),
    key("MODEL.ROI_BOX_HEAD.POOLER_SCALES", (0.0625,), "1 / stride of each level that is pooled from.",
        between=(1e-3, 1), not_empty=True),
    key("MODEL.ROI_BOX_HEAD.NUM_CLASSES", 81, "Foreground classes + 1; 0: from the data set or the checkpoint.",
        between=(0, MAX_CLASSES)),
    key("MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", 1024, "Width of the fully connected layers.", between=(1, MAX_CHANNELS)),
    key("MODEL.ROI_BOX_HEAD.USE_GN", False, "Group norm in the head."),
    key("MODEL.ROI_BOX_HEAD.NORM", "", 'Norm after the layers of the head (of FPNXconv1fcFeatureExtractor: after its '
        'convolutions); "" means group norm with USE_GN, else none.', ours=True,
        words=("", "GN", "BN", "SyncBN", "FrozenBN"), registry="engine.layers.norm.NORMS"),
    key("MODEL.ROI_BOX_HEAD.DILATION", 1, "Dilation of the head's convolutions.", between=(1, 64)),
    key("MODEL.ROI_BOX_HEAD.CONV_HEAD_DIM", 256, "Channels of the head's convolutions.", between=(1, MAX_CHANNELS)),
    key("MODEL.ROI_BOX_HEAD.NUM_STACKED_CONVS", 4, "Number of the head's convolutions.", between=(0, 100)),
    key("MODEL.ROI_BOX_HEAD.POOLER_ALIGNED", False, "RoIAlign with pixel centres at half-integers, as in detectron2 "
        "and mmdetection 2; False is the reference's.", ours=True),
    key("MODEL.ROI_BOX_HEAD.CLS_LOSS", "cross_entropy", "Class loss: cross_entropy or focal (of the softmax).",
        ours=True, words=("cross_entropy", "focal"), registry="engine.modeling.two_stage.roi_losses.CLS_LOSSES"),
    key("MODEL.ROI_BOX_HEAD.CLS_LOSS_WEIGHT", 1.0, "Weight of the class loss.", ours=True, at_least=0),
    key("MODEL.ROI_BOX_HEAD.LOSS_ALPHA", 0.25, "focal: weight of the foreground.", ours=True, between=(0, 1)),
    key("MODEL.ROI_BOX_HEAD.LOSS_GAMMA", 2.0, "focal: exponent that fades out easy examples.", ours=True,
        between=(0, 100)),
    key("MODEL.ROI_BOX_HEAD.BBOX_LOSS", "smooth_l1", "Box loss.", ours=True, words=_BOX_LOSSES,
        registry="engine.modeling.two_stage.roi_losses.BOX_LOSSES"),
    key("MODEL.ROI_BOX_HEAD.BBOX_LOSS_WEIGHT", 1.0, "Weight of the box loss.", ours=True, at_least=0),
    key("MODEL.ROI_BOX_HEAD.BBOX_LOSS_BETA", 1.0, "Error at which the smooth L1 loss becomes linear.",
        ours=True, at_least=0),
    key("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", (0.5, 0.6, 0.7), "A region is foreground from this IoU on, background "
        "below.", ours=True, between=(0, 1), not_empty=True),
    key("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS",
        ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)), "Factors of (dx, dy, dw, dh): 1 "
        "/ the standard deviations that mmdetection writes (where 0.033 is not exactly 1 / 30).", ours=True,
        between=(0, 1e6)),
    key("MODEL.ROI_BOX_CASCADE_HEAD.LOSS_WEIGHTS", (1.0, 0.5, 0.25), "Weights of both losses.", ours=True, at_least=0),
    key("MODEL.ROI_BOX_CASCADE_HEAD.SCORE_MEAN", "logits", "The scores come from the mean over the heads of their "
        "probabilities (detectron2) or of their logits (mmdetection).", ours=True, words=("logits", "probabilities"),
        registry="engine.modeling.two_stage.cascade.SCORE_MEANS"),
    key("MODEL.ROI_BOX_CASCADE_HEAD.RESAMPLE", True, "Each head samples its regions anew, with the boxes of the "
        "annotation added (mmdetection); False: the first head samples, the others learn from all regions that it "
        "refined (detectron2).", ours=True),
    key("MODEL.ROI_BOX_CASCADE_HEAD.FEATURE_GRADIENT", 1.0, "Factor of the gradient from each head into the pyramid; "
        "detectron2 uses 1 / 3.", ours=True, between=(0, 1)),
]
# fmt: on
