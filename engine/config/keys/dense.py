"""Keys of the dense stages: ATSS, RetinaNet, FCOS, and one of the user's own.

NUM_CLASSES is everywhere the number of foreground classes + 1, as the reference counts. Sizes are in pixels of the
resized image that the model sees.
"""

from __future__ import annotations

from engine.config.declaration import MAX_CLASSES, MAX_SIZE, key

_CLS_LOSSES = ("focal", "quality_focal", "varifocal")
_BOX_LOSSES = ("smooth_l1", "l1", "giou", "diou", "ciou")

# One key after another as in a table, so that a search for a key shows its default too.
# fmt: off
KEYS = [
    key("MODEL.DENSE.NAME", "", 'The dense stage, as an alternative to ATSS_ON, RETINANET_ON and FCOS_ON: ATSS, '
        'RETINANET and FCOS mean the same as these flags; GFL, VFNET and TOOD have their arguments in DENSE.ARGS; "" '
        'means what the flags say.', ours=True,
        words=("", "ATSS", "RETINANET", "FCOS", "GFL", "VFNET", "TOOD"),
        registry="engine.assembly.dense.DENSE_STAGES"),
    key("MODEL.DENSE.ARGS", {}, "Arguments of the dense stage, by name: any plain values. ATSS, RETINANET and FCOS "
        "have keys in MODEL.ATSS, MODEL.RETINANET and MODEL.FCOS instead.", ours=True),
    key("MODEL.DENSE.TOWER_CONV", "plain", "Convolutions in the towers of the head: plain or depthwise (separable: "
        "light, for CPUs).", ours=True, words=("plain", "depthwise"), registry="engine.layers.convs.CONVS"),
    key("MODEL.DENSE.TOWER_KERNEL", 3, "Height and width of these convolutions, odd.", ours=True, between=(1, 31)),
    key("MODEL.DENSE.TOWER_NORM", "", 'Norm in the towers; "" means the one of the published head. Batch norms can be '
        "merged into the convolutions, group norms cannot.", ours=True, words=("", "GN", "BN", "SyncBN", "FrozenBN"),
        registry="engine.layers.norm.NORMS"),
    key("MODEL.DENSE.TOWER_SHARED", 0, "This many leading convolutions are one tower for classes and boxes.", ours=True,
        between=(0, 100)),
    key("MODEL.DENSE.NUM_CLASSES", 0, "Of dense stages other than ATSS, RETINANET and FCOS: foreground classes + 1; 0: "
        "from the data set or the checkpoint.", ours=True, between=(0, MAX_CLASSES)),
    key("MODEL.ATSS.NUM_CLASSES", 81, "Foreground classes + 1; 0: from the data set or the checkpoint.",
        between=(0, MAX_CLASSES)),
    key("MODEL.ATSS.ANCHOR_SIZES", (64, 128, 256, 512, 1024), "Anchor size of each level.",
        between=(1, MAX_SIZE), not_empty=True),
    key("MODEL.ATSS.ASPECT_RATIOS", (1.0,), "Height / width of a cell's anchors.", between=(1e-3, 1e3), not_empty=True),
    key("MODEL.ATSS.ANCHOR_STRIDES", (8, 16, 32, 64, 128), "Stride of each level.", between=(1, 1024)),
    key("MODEL.ATSS.STRADDLE_THRESH", 0, "Does nothing, as in the reference: anchors that leave the image are trained "
        "on.", between=(-1, MAX_SIZE)),
    key("MODEL.ATSS.OCTAVE", 2.0, "The anchors of a cell have the sizes size * OCTAVE ** (i / SCALES_PER_OCTAVE), i = "
        "0, 1, ...", between=(1, 100)),
    key("MODEL.ATSS.SCALES_PER_OCTAVE", 1, "Number of anchor sizes per cell.", between=(1, 100)),
    key("MODEL.ATSS.NUM_CONVS", 4, "Number of 3x3 convolutions in each tower of the head.", between=(0, 100)),
    key("MODEL.ATSS.USE_DCN_IN_TOWER", False, "The last convolution of each tower is deformable."),
    key("MODEL.ATSS.CLS_LOSS", "focal", "Class loss: focal learns that a positive's score is 1; quality_focal (GFL's) "
        "and varifocal (VFNet's) learn that it is the IoU of its box.", ours=True, words=_CLS_LOSSES,
        registry="engine.modeling.dense.class_losses.DENSE_CLS_LOSSES"),
    key("MODEL.ATSS.LOSS_ALPHA", 0.25, "Focal loss: weight of positives; negatives weigh 1 - this.", between=(0, 1)),
    key("MODEL.ATSS.LOSS_GAMMA", 2.0, "Focal loss: exponent that fades out easy examples.", between=(0, 100)),
    key("MODEL.ATSS.POSITIVE_TYPE", "ATSS", "Which anchors are positive: ATSS (by statistics), SSC (as in FCOS), IoU "
        "(as in RetinaNet), TOPK (the nearest), task_aligned (by the predictions, as in TOOD).",
        words=("ATSS", "SSC", "IoU", "TOPK", "task_aligned"), registry="engine.assembly.dense.ASSIGNERS"),
    key("MODEL.ATSS.FG_IOU_THRESHOLD", 0.5, "POSITIVE_TYPE IoU: positive from this IoU on.", between=(0, 1)),
    key("MODEL.ATSS.BG_IOU_THRESHOLD", 0.4, "POSITIVE_TYPE IoU: negative below this IoU.", between=(0, 1)),
    key("MODEL.ATSS.TOPK", 9, "POSITIVE_TYPE ATSS: candidates per level and box; TOPK: positives per box.", at_least=1),
    key("MODEL.ATSS.REGRESSION_TYPE", "BOX", "Boxes are regressed from an anchor (BOX) or from its centre (POINT).",
        words=("BOX", "POINT")),
    key("MODEL.ATSS.BBOX_LOSS", "giou", "Box loss: of the boxes (giou, diou, ciou) or of the codes (l1, smooth_l1).",
        ours=True, words=_BOX_LOSSES, registry="engine.modeling.two_stage.roi_losses.BOX_LOSSES"),
    key("MODEL.ATSS.REG_LOSS_WEIGHT", 2.0, "Weight of the box loss.", at_least=0),
    key("MODEL.ATSS.MIN_POSITIVES", 0, "Each image counts as at least this many positives in what the losses are "
        "divided by; mmdetection has 1.", ours=True, between=(0, 1)),
    key("MODEL.ATSS.PRIOR_PROB", 0.01, "Score of every class before training.", between=(1e-9, 1 - 1e-9)),
    key("MODEL.ATSS.INFERENCE_TH", 0.05, "Candidates score more than this.", between=(0, 1)),
    key("MODEL.ATSS.NMS_TH", 0.6, "NMS drops a box whose IoU with a better one of its class is larger.",
        between=(0, 1)),
    key("MODEL.ATSS.PRE_NMS_TOP_N", 1000, "Candidates per level that reach the NMS.", at_least=1),
    key("MODEL.ATSS.SCORE", "sqrt", 'Score of a box: "sqrt" of class score x centerness, which ranks the candidates '
        'too; "product" of the two, with candidates ranked by class score (mmdetection); "class" for the '
        'class score alone.', ours=True, words=("sqrt", "product", "class")),
    key("MODEL.RETINANET.NUM_CLASSES", 81, "Foreground classes + 1; 0: from the data set or the checkpoint.",
        between=(0, MAX_CLASSES)),
    key("MODEL.RETINANET.ANCHOR_SIZES", (32, 64, 128, 256, 512), "First size of the anchors of each level.",
        between=(1, MAX_SIZE),
        not_empty=True),
    key("MODEL.RETINANET.ASPECT_RATIOS", (0.5, 1.0, 2.0), "Height / width of a cell's anchors.",
        between=(1e-3, 1e3), not_empty=True),
    key("MODEL.RETINANET.ANCHOR_STRIDES", (8, 16, 32, 64, 128), "Stride of each level.", between=(1, 1024)),
    key("MODEL.RETINANET.STRADDLE_THRESH", 0, "Does nothing, as in the reference: anchors that leave the image are "
        "trained on.", between=(-1, MAX_SIZE)),
    key("MODEL.RETINANET.OCTAVE", 2.0, "The anchors of a cell have the sizes size * OCTAVE ** (i / SCALES_PER_OCTAVE), "
        "i = 0, 1, ...", between=(1, 100)),
    key("MODEL.RETINANET.SCALES_PER_OCTAVE", 3, "Number of anchor sizes per cell.", between=(1, 100)),
    key("MODEL.RETINANET.USE_C5", True, "The pyramid's P6 comes from C5 (True) or from P5 (False), for every dense "
        "stage, not only RetinaNet."),
    key("MODEL.RETINANET.NUM_CONVS", 4, "Number of 3x3 convolutions in each tower of the head.", between=(0, 100)),
    key("MODEL.RETINANET.USE_GN", False, "Group norm in the towers.", ours=True),
    key("MODEL.RETINANET.DELTA_WEIGHTS", (10.0, 10.0, 5.0, 5.0), "Factors of (dx, dy, dw, dh).", ours=True,
        between=(1e-6, 1e6), length=(4, "for dx, dy, dw, dh")),
    key("MODEL.RETINANET.BBOX_REG_WEIGHT", 4.0, "The box loss is divided by this.", between=(1e-6, 1e6)),
    key("MODEL.RETINANET.LOSS_NORMALIZER", "positives", "What the losses are divided by: positives of the batch (the "
        "reference's), a moving_average of them (detectron2's) or the positives of each image, per_image "
        "(torchvision's); only the first one uses BBOX_REG_WEIGHT.", ours=True,
        words=("positives", "moving_average", "per_image"), registry="engine.modeling.dense.retinanet.NORMALIZERS"),
    key("MODEL.RETINANET.BBOX_LOSS", "smooth_l1", "Box loss: of the deltas (l1, smooth_l1) or of the boxes (giou, "
        "diou, ciou).", ours=True, words=_BOX_LOSSES, registry="engine.modeling.two_stage.roi_losses.BOX_LOSSES"),
    key("MODEL.RETINANET.BBOX_REG_BETA", 0.11, "Error at which the smooth L1 loss becomes linear.", at_least=0),
    key("MODEL.RETINANET.PRE_NMS_TOP_N", 1000, "Candidates per level that reach the NMS.", at_least=1),
    key("MODEL.RETINANET.FG_IOU_THRESHOLD", 0.5, "Positive from this IoU on.", between=(0, 1)),
    key("MODEL.RETINANET.BG_IOU_THRESHOLD", 0.4, "Negative below this IoU.", between=(0, 1)),
    key("MODEL.RETINANET.CLS_LOSS", "focal", "As MODEL.ATSS.CLS_LOSS.", ours=True, words=_CLS_LOSSES,
        registry="engine.modeling.dense.class_losses.DENSE_CLS_LOSSES"),
    key("MODEL.RETINANET.LOSS_ALPHA", 0.25, "Focal loss: weight of positives; negatives weigh 1 - this.",
        between=(0, 1)),
    key("MODEL.RETINANET.LOSS_GAMMA", 2.0, "Focal loss: exponent that fades out easy examples.", between=(0, 100)),
    key("MODEL.RETINANET.PRIOR_PROB", 0.01, "Score of every class before training.", between=(1e-9, 1 - 1e-9)),
    key("MODEL.RETINANET.INFERENCE_TH", 0.05, "Candidates score more than this.", between=(0, 1)),
    key("MODEL.RETINANET.NMS_TH", 0.4, "NMS drops a box whose IoU with a better one of its class is larger.",
        between=(0, 1)),
    key("MODEL.FCOS.NUM_CLASSES", 81, "Foreground classes + 1; 0: from the data set or the checkpoint.",
        between=(0, MAX_CLASSES)),
    key("MODEL.FCOS.FPN_STRIDES", (8, 16, 32, 64, 128), "Stride of each level.", between=(1, 1024)),
    key("MODEL.FCOS.PRIOR_PROB", 0.01, "Score of every class before training.", between=(1e-9, 1 - 1e-9)),
    key("MODEL.FCOS.INFERENCE_TH", 0.05, "Candidates score more than this.", between=(0, 1)),
    key("MODEL.FCOS.NMS_TH", 0.6, "NMS drops a box whose IoU with a better one of its class is larger.",
        between=(0, 1)),
    key("MODEL.FCOS.PRE_NMS_TOP_N", 1000, "Candidates per level that reach the NMS.", at_least=1),
    key("MODEL.FCOS.CLS_LOSS", "focal", "As MODEL.ATSS.CLS_LOSS.", ours=True, words=_CLS_LOSSES,
        registry="engine.modeling.dense.class_losses.DENSE_CLS_LOSSES"),
    key("MODEL.FCOS.LOSS_ALPHA", 0.25, "Focal loss: weight of positives; negatives weigh 1 - this.", between=(0, 1)),
    key("MODEL.FCOS.LOSS_GAMMA", 2.0, "Focal loss: exponent that fades out easy examples.", between=(0, 100)),
    key("MODEL.FCOS.NUM_CONVS", 4, "Number of 3x3 convolutions in each tower of the head.", between=(0, 100)),
    key("MODEL.FCOS.CENTER_SAMPLING_RADIUS", 0.0, "Only cells within this many strides of a box's centre are positive; "
        "0 uses the whole box.", at_least=0),
    key("MODEL.FCOS.IOU_LOSS_TYPE", "iou", "Box loss.", words=("iou", "linear_iou", "giou", "diou", "ciou"),
        registry="engine.layers.iou_losses.IOU_LOSSES"),
    key("MODEL.FCOS.NORM_REG_TARGETS", False, "Regress distances in strides, relu(prediction), instead of pixels, "
        "exp(prediction)."),
    key("MODEL.FCOS.CENTERNESS_ON_REG", False, "Centerness is predicted from the regression tower instead of the "
        "classification tower."),
    key("MODEL.FCOS.USE_DCN_IN_TOWER", False, "The last convolution of each tower is deformable."),
    key("MODEL.FCOS.THRESH_JOINT_SCORE", False, "INFERENCE_TH applies to sqrt(class score x centerness) (torchvision) "
        "instead of the class score.", ours=True),
]
# fmt: on
