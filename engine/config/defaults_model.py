"""The `MODEL` branch of the configuration tree: every key with its default, and above it what it
means.

NUM_CLASSES is everywhere the number of foreground classes + 1, as the reference counts; 0 takes it
from the data set, or from the checkpoint when testing. Sizes are in pixels of the resized image the
model sees.
"""

from __future__ import annotations

from yacs.config import CfgNode as CN

_C = CN()

# Name of the whole detector; there is one.
_C.META_ARCHITECTURE = "GeneralizedRCNN"
# True: a one-stage (dense) detector; False: a second stage (ROI_HEADS) refines the first one's
# boxes.
_C.RPN_ONLY = False
# The dense stage is ATSS.
_C.ATSS_ON = False
# The dense stage is FCOS.
_C.FCOS_ON = False
# The dense stage is RetinaNet.
_C.RETINANET_ON = False
# cuda, cuda:N or cpu; without a GPU the engine warns and uses the CPU.
_C.DEVICE = "cuda"
# Initial weights: catalog://NAME, torchvision://NAME, a URL or a file; "" trains from scratch.
_C.WEIGHT = ""
# (ours) What to do to the weights before they are matched: "keep_first_classes" slices a head of more classes (such as
# COCO's 80) to this model's number; "" leaves them.
_C.WEIGHT_SURGERY = ""
# Replace trainable batch norms by ones that average over all processes.
_C.USE_SYNCBN = False
# Two-stage: one box for all classes instead of one for each.
_C.CLS_AGNOSTIC_BBOX_REG = False
# (ours) inclusive: widths are x2 - x1 + 1, as the reference's weights expect; continuous: x2 - x1.
_C.PIXEL_CONVENTION = "inclusive"
# (ours) What limits the deltas dw and dh of boxes: "upper" log(1000 / 16) above only, as everybody but mmdetection,
# which limits them below, too ("both").
_C.DELTA_LIMIT = "upper"
# (ours) Where anchors lie and how they are rounded: reference, exact (mmdetection, detectron2), torchvision; "" is the
# reference's with inclusive pixels and exact with continuous ones.
_C.ANCHOR_CONVENTION = ""
# (ours) Keep feature maps in channels-last memory, which is faster; the numbers agree.
_C.CHANNELS_LAST = True

_C.BACKBONE = CN()
# then -FPN-RETINANET (levels P3..P7) or -FPN (P2..P6). The
# default is the reference's, has no pyramid and cannot be built.
_C.BACKBONE.CONV_BODY = "R-50-C4"
# The stem and this many - 1 stages keep their weights in training; 0 trains all.
_C.BACKBONE.FREEZE_CONV_BODY_AT = 2
# Announces group norm in the body and sets nothing, as in the reference: STEM_FUNC and TRANS_FUNC
# decide.
_C.BACKBONE.USE_GN = False
# (ours) The body: or one of your own; "" is what CONV_BODY says.
_C.BACKBONE.NAME = ""
# (ours) Further arguments of the body, by name.
_C.BACKBONE.ARGS = CN(new_allowed=True)

_C.NECK = CN()
# (ours) The neck: FPN (levels P2..P6), FPN-RETINANET (P3..P7) or one of your own; "" is what CONV_BODY says.
_C.NECK.NAME = ""
# (ours) Further arguments of the neck, by name.
_C.NECK.ARGS = CN(new_allowed=True)

# (ours) A dense stage by its name; temporary, the declaration of the keys replaces this.
_C.DENSE = CN()
# (ours) Name.
_C.DENSE.NAME = ""
# (ours) Arguments.
_C.DENSE.ARGS = CN(new_allowed=True)
# (ours) Classes.
_C.DENSE.NUM_CLASSES = 0

_C.FPN = CN()
# Group norm after the pyramid's convolutions.
_C.FPN.USE_GN = False
# ReLU after the pyramid's convolutions.
_C.FPN.USE_RELU = False
# (ours) P7 comes from relu(P6), as in RetinaNet; mmdetection takes P6 itself (False).
_C.FPN.RELU_BEFORE_P7 = True

# Group norm, wherever it is used; other values than the defaults are refused for now.
_C.GROUP_NORM = CN()
# Channels in a group, or -1.
_C.GROUP_NORM.DIM_PER_GP = -1
# Groups, or -1.
_C.GROUP_NORM.NUM_GROUPS = 32
# Added to the variance.
_C.GROUP_NORM.EPSILON = 1e-5

_C.RESNETS = CN()
# Groups of the 3x3 convolutions; more than 1 is a ResNeXt.
_C.RESNETS.NUM_GROUPS = 1
# Channels of each group in the first stage.
_C.RESNETS.WIDTH_PER_GROUP = 64
# A stage's stride lies in its first 1x1 convolution (MSRA weights) or in the 3x3 one (others).
_C.RESNETS.STRIDE_IN_1X1 = True
# Block and its norm: BottleneckWithFixedBatchNorm or BottleneckWithGN.
_C.RESNETS.TRANS_FUNC = "BottleneckWithFixedBatchNorm"
# Stem and its norm: StemWithFixedBatchNorm or StemWithGN; its norm must be the one of TRANS_FUNC.
_C.RESNETS.STEM_FUNC = "StemWithFixedBatchNorm"
# (ours) Norm of stem and blocks: FrozenBN, BN, SyncBN or GN; "" is what STEM_FUNC and TRANS_FUNC
# say.
_C.RESNETS.NORM = ""
# Dilation of the last stage; 2 keeps its resolution.
_C.RESNETS.RES5_DILATION = 1
# Channels of the pyramid's levels.
_C.RESNETS.BACKBONE_OUT_CHANNELS = 1024
# Output channels of the first stage; each later one has twice as many.
_C.RESNETS.RES2_OUT_CHANNELS = 256
# Output channels of the stem.
_C.RESNETS.STEM_OUT_CHANNELS = 64
# Which of the four stages have deformable 3x3 convolutions.
_C.RESNETS.STAGE_WITH_DCN = (False, False, False, False)
# Deformable convolutions with masks (version 2) instead of offsets alone.
_C.RESNETS.WITH_MODULATED_DCN = False
# Channel groups with offsets of their own.
_C.RESNETS.DEFORMABLE_GROUPS = 1

_C.ATSS = CN()
# Foreground classes + 1; 0: from the data set or the checkpoint.
_C.ATSS.NUM_CLASSES = 81
# Size of the square anchor of each level.
_C.ATSS.ANCHOR_SIZES = (64, 128, 256, 512, 1024)
# Height / width of the anchors of a place.
_C.ATSS.ASPECT_RATIOS = (1.0,)
# Stride of each level.
_C.ATSS.ANCHOR_STRIDES = (8, 16, 32, 64, 128)
# Does nothing, as in the reference: anchors that leave the image are trained on.
_C.ATSS.STRADDLE_THRESH = 0
# The anchors of a place have the sizes size * OCTAVE ** (i / SCALES_PER_OCTAVE), i = 0, 1, ...
_C.ATSS.OCTAVE = 2.0
# Number of sizes of the anchors of a place.
_C.ATSS.SCALES_PER_OCTAVE = 1
# 3x3 convolutions of each tower of the head.
_C.ATSS.NUM_CONVS = 4
# The last convolution of each tower is deformable.
_C.ATSS.USE_DCN_IN_TOWER = False
# Focal loss: weight of positives.
_C.ATSS.LOSS_ALPHA = 0.25
# Focal loss: exponent that fades out easy examples.
_C.ATSS.LOSS_GAMMA = 2.0
# Which anchors are positive: ATSS (by statistics), SSC (as FCOS), IoU (as RetinaNet), TOPK
# (nearest).
_C.ATSS.POSITIVE_TYPE = "ATSS"
# POSITIVE_TYPE IoU: positive from this IoU on.
_C.ATSS.FG_IOU_THRESHOLD = 0.5
# POSITIVE_TYPE IoU: negative below this IoU.
_C.ATSS.BG_IOU_THRESHOLD = 0.4
# POSITIVE_TYPE ATSS: candidates on each level for a box; TOPK: positives of a box.
_C.ATSS.TOPK = 9
# Boxes are regressed from an anchor (BOX) or from its centre (POINT).
_C.ATSS.REGRESSION_TYPE = "BOX"
# Weight of the box loss.
_C.ATSS.REG_LOSS_WEIGHT = 2.0
# Score that the untrained classifier gives everywhere.
_C.ATSS.PRIOR_PROB = 0.01
# Candidates score more than this.
_C.ATSS.INFERENCE_TH = 0.05
# NMS drops a box whose IoU with a better one of its class is larger.
_C.ATSS.NMS_TH = 0.6
# Candidates of a level that reach the NMS.
_C.ATSS.PRE_NMS_TOP_N = 1000
# (ours) Score of a box: "sqrt" of class score x centerness, by which candidates are ranked, too; "product" of the two,
# candidates ranked by class score (mmdetection).
_C.ATSS.SCORE = "sqrt"

_C.RETINANET = CN()
# Foreground classes + 1; 0: from the data set or the checkpoint.
_C.RETINANET.NUM_CLASSES = 81
# First size of the anchors of each level.
_C.RETINANET.ANCHOR_SIZES = (32, 64, 128, 256, 512)
# Height / width of the anchors of a place.
_C.RETINANET.ASPECT_RATIOS = (0.5, 1.0, 2.0)
# Stride of each level.
_C.RETINANET.ANCHOR_STRIDES = (8, 16, 32, 64, 128)
# Does nothing, as in the reference: anchors that leave the image are trained on.
_C.RETINANET.STRADDLE_THRESH = 0
# The anchors of a place have the sizes size * OCTAVE ** (i / SCALES_PER_OCTAVE), i = 0, 1, ...
_C.RETINANET.OCTAVE = 2.0
# Number of sizes of the anchors of a place.
_C.RETINANET.SCALES_PER_OCTAVE = 3
# The pyramid's P6 comes from C5 (True) or from P5 (False), for every dense stage, ATSS too.
_C.RETINANET.USE_C5 = True
# 3x3 convolutions of each tower of the head.
_C.RETINANET.NUM_CONVS = 4
# (ours) Group norm in the towers.
_C.RETINANET.USE_GN = False
# (ours) Factors of (dx, dy, dw, dh).
_C.RETINANET.DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# The box loss is divided by this.
_C.RETINANET.BBOX_REG_WEIGHT = 4.0
# (ours) What the losses are divided by: positives of the batch (the reference's), moving_average of them (detectron2's)
# or those of each image, per_image (torchvision's); only the first one uses BBOX_REG_WEIGHT.
_C.RETINANET.LOSS_NORMALIZER = "positives"
# Error at which the smooth L1 loss turns from square to straight.
_C.RETINANET.BBOX_REG_BETA = 0.11
# Candidates of a level that reach the NMS.
_C.RETINANET.PRE_NMS_TOP_N = 1000
# Positive from this IoU on.
_C.RETINANET.FG_IOU_THRESHOLD = 0.5
# Negative below this IoU.
_C.RETINANET.BG_IOU_THRESHOLD = 0.4
# Focal loss: weight of positives.
_C.RETINANET.LOSS_ALPHA = 0.25
# Focal loss: exponent that fades out easy examples.
_C.RETINANET.LOSS_GAMMA = 2.0
# Score that the untrained classifier gives everywhere.
_C.RETINANET.PRIOR_PROB = 0.01
# Candidates score more than this.
_C.RETINANET.INFERENCE_TH = 0.05
# NMS drops a box whose IoU with a better one of its class is larger.
_C.RETINANET.NMS_TH = 0.4

_C.FCOS = CN()
# Foreground classes + 1; 0: from the data set or the checkpoint.
_C.FCOS.NUM_CLASSES = 81
# Stride of each level.
_C.FCOS.FPN_STRIDES = (8, 16, 32, 64, 128)
# Score that the untrained classifier gives everywhere.
_C.FCOS.PRIOR_PROB = 0.01
# Candidates score more than this.
_C.FCOS.INFERENCE_TH = 0.05
# NMS drops a box whose IoU with a better one of its class is larger.
_C.FCOS.NMS_TH = 0.6
# Candidates of a level that reach the NMS.
_C.FCOS.PRE_NMS_TOP_N = 1000
# Focal loss: weight of positives.
_C.FCOS.LOSS_ALPHA = 0.25
# Focal loss: exponent that fades out easy examples.
_C.FCOS.LOSS_GAMMA = 2.0
# 3x3 convolutions of each tower of the head.
_C.FCOS.NUM_CONVS = 4
# Only places within this many strides of a box's centre are positive; 0 takes the whole box.
_C.FCOS.CENTER_SAMPLING_RADIUS = 0.0
# Box loss: iou, linear_iou or giou.
_C.FCOS.IOU_LOSS_TYPE = "iou"
# Regress distances in strides, relu(prediction), instead of pixels, exp(prediction).
_C.FCOS.NORM_REG_TARGETS = False
# Centerness is read off the regression tower instead of the classification tower.
_C.FCOS.CENTERNESS_ON_REG = False
# The last convolution of each tower is deformable.
_C.FCOS.USE_DCN_IN_TOWER = False
# (ours) INFERENCE_TH applies to sqrt(class score x centerness) (torchvision) instead of the class score.
_C.FCOS.THRESH_JOINT_SCORE = False

# First stage of a two-stage detector (RPN_ONLY: False): the region proposal network, or ATSS with ATSS_ON, which then
# tells objects from background only; then of these keys NMS_THRESH and FPN_POST_NMS_TOP_N_* count.
_C.RPN = CN()
# The first stage looks at all levels of a pyramid.
_C.RPN.USE_FPN = False
# Anchor sizes, as many for each level: the first ones belong to the first level, and so on.
_C.RPN.ANCHOR_SIZES = (32, 64, 128, 256, 512)
# Stride of each level.
_C.RPN.ANCHOR_STRIDE = (16,)
# Height / width of the anchors of a place.
_C.RPN.ASPECT_RATIOS = (0.5, 1.0, 2.0)
# Anchors that leave the image by more than this are not trained on; -1 keeps all.
_C.RPN.STRADDLE_THRESH = 0
# Positive from this IoU on.
_C.RPN.FG_IOU_THRESHOLD = 0.7
# Negative below this IoU.
_C.RPN.BG_IOU_THRESHOLD = 0.3
# Anchors of an image that are sampled for the losses.
_C.RPN.BATCH_SIZE_PER_IMAGE = 256
# Largest part of them that is positive.
_C.RPN.POSITIVE_FRACTION = 0.5
# Proposals of a level that reach the NMS in training.
_C.RPN.PRE_NMS_TOP_N_TRAIN = 12000
# Proposals of a level that reach the NMS in testing.
_C.RPN.PRE_NMS_TOP_N_TEST = 6000
# Proposals of a level kept after the NMS in training.
_C.RPN.POST_NMS_TOP_N_TRAIN = 2000
# Proposals of a level kept after the NMS in testing.
_C.RPN.POST_NMS_TOP_N_TEST = 1000
# NMS drops a proposal whose IoU with a better one is larger.
_C.RPN.NMS_THRESH = 0.7
# Proposals with a shorter side are dropped, pixels.
_C.RPN.MIN_SIZE = 0
# Proposals of all levels together kept for an image in training. (The reference counts them over the images of a
# process.)
_C.RPN.FPN_POST_NMS_TOP_N_TRAIN = 2000
# Proposals of all levels together kept in testing.
_C.RPN.FPN_POST_NMS_TOP_N_TEST = 2000
# Head of the first stage.
_C.RPN.RPN_HEAD = "SingleConvRPNHead"
# (ours) Which anchors are sampled: random, ohem (largest loss) or balanced (evenly over boxes and ranges of IoU).
_C.RPN.SAMPLER = "random"
# (ours) Box loss: smooth_l1, l1 or giou.
_C.RPN.BBOX_LOSS = "smooth_l1"
# (ours) Error at which the smooth L1 loss turns from square to straight.
_C.RPN.BBOX_LOSS_BETA = 1.0 / 9
# (ours) The best anchors of a box are positive from this IoU on, where FG_IOU_THRESHOLD is not reached; 1 is off.
_C.RPN.LOW_QUALITY_IOU = 0.0
# (ours) Such an anchor learns the box it is best for (True, mmdetection) or the one it overlaps most itself (False).
_C.RPN.LOW_QUALITY_OWN = False
# (ours) The losses are sums divided by the number of sampled anchors (True) or by BATCH_SIZE_PER_IMAGE an image (False,
# detectron2).
_C.RPN.COUNT_SAMPLED = True

# Second stage of a two-stage detector.
_C.ROI_HEADS = CN()
# (ours) StandardROIHeads (Faster R-CNN) or CascadeROIHeads (Cascade R-CNN, see ROI_BOX_CASCADE_HEAD).
_C.ROI_HEADS.NAME = "StandardROIHeads"
# The second stage pools each proposal from the level that suits its size.
_C.ROI_HEADS.USE_FPN = False
# A proposal is foreground from this IoU on. (A cascade has IOUS instead of both thresholds.)
_C.ROI_HEADS.FG_IOU_THRESHOLD = 0.5
# A proposal is background below this IoU.
_C.ROI_HEADS.BG_IOU_THRESHOLD = 0.5
# Factors of (dx, dy, dw, dh).
_C.ROI_HEADS.BBOX_REG_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# Proposals of an image that are sampled for the losses.
_C.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 512
# Largest part of them that is foreground.
_C.ROI_HEADS.POSITIVE_FRACTION = 0.25
# Detections score more than this.
_C.ROI_HEADS.SCORE_THRESH = 0.05
# NMS drops a box whose IoU with a better one of its class is larger.
_C.ROI_HEADS.NMS = 0.5
# Largest number of detections kept for an image; 0: no limit.
_C.ROI_HEADS.DETECTIONS_PER_IMG = 100
# (ours) Which proposals are sampled: random, ohem (largest loss) or balanced (evenly over boxes and ranges of IoU).
_C.ROI_HEADS.SAMPLER = "random"
# (ours) The boxes of the annotation join the proposals in training.
_C.ROI_HEADS.PROPOSAL_APPEND_GT = True

_C.ROI_BOX_HEAD = CN()
# What turns a pooled proposal into a vector: FPN2MLPFeatureExtractor (two layers) or FPNXconv1fcFeatureExtractor
# (convolutions and a layer). The default is the reference's and cannot be built.
_C.ROI_BOX_HEAD.FEATURE_EXTRACTOR = "ResNet50Conv5ROIFeatureExtractor"
# What turns the vector into logits and deltas: FPNPredictor. The default is the reference's and cannot be built.
_C.ROI_BOX_HEAD.PREDICTOR = "FastRCNNPredictor"
# Height and width of a pooled proposal, cells.
_C.ROI_BOX_HEAD.POOLER_RESOLUTION = 14
# Samples along each side of a cell; 0 adapts to the proposal's size.
_C.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = 0
# 1 / stride of each level that is pooled from.
_C.ROI_BOX_HEAD.POOLER_SCALES = (0.0625,)
# Foreground classes + 1; 0: from the data set or the checkpoint.
_C.ROI_BOX_HEAD.NUM_CLASSES = 81
# Width of the fully connected layers.
_C.ROI_BOX_HEAD.MLP_HEAD_DIM = 1024
# Group norm in the head.
_C.ROI_BOX_HEAD.USE_GN = False
# Dilation of the head's convolutions.
_C.ROI_BOX_HEAD.DILATION = 1
# Channels of the head's convolutions.
_C.ROI_BOX_HEAD.CONV_HEAD_DIM = 256
# Number of the head's convolutions.
_C.ROI_BOX_HEAD.NUM_STACKED_CONVS = 4
# (ours) RoIAlign with pixel centres at half-integers, as detectron2 and mmdetection 2; False is the reference's.
_C.ROI_BOX_HEAD.POOLER_ALIGNED = False
# (ours) Class loss: cross_entropy or focal (of the softmax).
_C.ROI_BOX_HEAD.CLS_LOSS = "cross_entropy"
# (ours) Weight of the class loss.
_C.ROI_BOX_HEAD.CLS_LOSS_WEIGHT = 1.0
# (ours) focal: weight of the foreground.
_C.ROI_BOX_HEAD.LOSS_ALPHA = 0.25
# (ours) focal: exponent that fades out easy examples.
_C.ROI_BOX_HEAD.LOSS_GAMMA = 2.0
# (ours) Box loss: smooth_l1, l1 or giou.
_C.ROI_BOX_HEAD.BBOX_LOSS = "smooth_l1"
# (ours) Weight of the box loss.
_C.ROI_BOX_HEAD.BBOX_LOSS_WEIGHT = 1.0
# (ours) Error at which the smooth L1 loss turns from square to straight.
_C.ROI_BOX_HEAD.BBOX_LOSS_BETA = 1.0

# (ours) Second stage ROI_HEADS.NAME CascadeROIHeads: heads in a row, each with its own entry of the tuples.
_C.ROI_BOX_CASCADE_HEAD = CN()
# (ours) A region is foreground from this IoU on, background below.
_C.ROI_BOX_CASCADE_HEAD.IOUS = (0.5, 0.6, 0.7)
# (ours) Factors of (dx, dy, dw, dh): 1 / the standard deviations that mmdetection writes (where 0.033 is no 1 / 30).
_C.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS = (
    (10.0, 10.0, 5.0, 5.0),
    (20.0, 20.0, 10.0, 10.0),
    (30.0, 30.0, 15.0, 15.0),
)
# (ours) Weights of both losses.
_C.ROI_BOX_CASCADE_HEAD.LOSS_WEIGHTS = (1.0, 0.5, 0.25)
# (ours) Mean over the heads: of their probabilities (detectron2) or of their logits (mmdetection).
_C.ROI_BOX_CASCADE_HEAD.SCORE_MEAN = "logits"
# (ours) Every head samples its regions anew, joined by the boxes of the annotation (mmdetection); False: the first one
# samples, the others learn from all that it refined (detectron2).
_C.ROI_BOX_CASCADE_HEAD.RESAMPLE = True
# (ours) Factor of the gradient from each head into the pyramid; detectron2 has 1 / 3.
_C.ROI_BOX_CASCADE_HEAD.FEATURE_GRADIENT = 1.0

MODEL = _C
