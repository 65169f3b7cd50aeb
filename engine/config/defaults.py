"""The configuration tree: every key with its default, and above it what it means.

Spelling and defaults are those of the reference (ATSS on maskrcnn-benchmark), so that its YAML
files load unchanged; the keys it does not have are marked `(ours)`. Types follow from the defaults,
or from `schema.TYPES` where a default cannot tell; allowed values and ranges stand in `schema`,
rules between keys in `rules`. `MODEL` stands in `defaults_model`.
"""

from __future__ import annotations

from yacs.config import CfgNode as CN

from engine.config.defaults_model import MODEL

_C = CN()

# Folder of everything a run writes.
_C.OUTPUT_DIR = "."
# (ours) Python modules to import before building: a user's own backbones, heads, losses register
# themselves there.
_C.IMPORTS = ()
# (ours) Seed of weights, sampling and augmentation; -1 draws one and writes it to the log.
_C.SEED = -1
# (ours) Use only operators whose results are the same bits each time; slower on a GPU.
_C.DETERMINISTIC = False

_C.MODEL = MODEL

_C.INPUT = CN()
# Lengths of the short side in training, pixels; one is drawn for each image.
_C.INPUT.MIN_SIZE_TRAIN = (800,)
# (low, high): draw the short side from this range instead, both ends included; (-1, -1) is off.
_C.INPUT.MIN_SIZE_RANGE_TRAIN = (-1, -1)
# Limit of the long side in training, pixels.
_C.INPUT.MAX_SIZE_TRAIN = 1333
# Length of the short side in testing, pixels.
_C.INPUT.MIN_SIZE_TEST = 800
# Limit of the long side in testing, pixels.
_C.INPUT.MAX_SIZE_TEST = 1333
# Subtracted from each channel, in the order and range that TO_BGR255 selects.
_C.INPUT.PIXEL_MEAN = (102.9801, 115.9465, 122.7717)
# Each channel is divided by this after the mean is subtracted.
_C.INPUT.PIXEL_STD = (1.0, 1.0, 1.0)
# True: the model sees BGR in 0..255 (Caffe2 weights); False: RGB in 0..1 (torchvision weights).
_C.INPUT.TO_BGR255 = True
# (ours) Probability of mirroring a training image left-right.
_C.INPUT.HORIZONTAL_FLIP_PROB_TRAIN = 0.5
# (ours) Probability of mirroring a training image top-bottom.
_C.INPUT.VERTICAL_FLIP_PROB_TRAIN = 0.0
# (ours) Colour jitter: brightness is multiplied by a factor drawn from [1 - x, 1 + x]; 0 is off.
_C.INPUT.BRIGHTNESS = 0.0
# (ours) The same for contrast.
_C.INPUT.CONTRAST = 0.0
# (ours) The same for saturation.
_C.INPUT.SATURATION = 0.0
# (ours) Hue is turned by a part of the colour circle drawn from [-x, x]; x <= 0.5; 0 is off.
_C.INPUT.HUE = 0.0

_C.DATASETS = CN()
# Names of the data sets to train on: built-in ones (coco_2017_train, ...) or ones of CATALOG.
_C.DATASETS.TRAIN = ()
# Names of the data sets to test on.
_C.DATASETS.TEST = ()
# (ours) Names of the data sets to evaluate on during training; not built yet, so other than () is refused.
_C.DATASETS.VAL = ()
# (ours) Folder that the relative paths of the catalog start from.
_C.DATASETS.ROOT = "datasets"
# (ours) Your own data sets, any number: {name: {img_dir: folder of images, ann_file: COCO JSON}}. For another format
# add type: a class that a module of IMPORTS registered in engine.data.coco.DATASET_TYPES.
_C.DATASETS.CATALOG = CN(new_allowed=True)

_C.DATALOADER = CN()
# Processes that read images; 0 reads in the training process.
_C.DATALOADER.NUM_WORKERS = 4
# Height and width of a batch are padded to a multiple of this; 0 is off.
_C.DATALOADER.SIZE_DIVISIBILITY = 0
# Keep landscape and portrait images in separate batches, which saves padding.
_C.DATALOADER.ASPECT_RATIO_GROUPING = True
# (ours) Leave training images without boxes out; by default they are trained on.
_C.DATALOADER.FILTER_EMPTY = False

_C.SOLVER = CN()
# Training steps.
_C.SOLVER.MAX_ITER = 40000
# (ours) Name of a torch.optim class.
_C.SOLVER.OPTIMIZER = "SGD"
# Learning rate after the warm-up.
_C.SOLVER.BASE_LR = 0.001
# Learning rate of biases relative to BASE_LR.
_C.SOLVER.BIAS_LR_FACTOR = 2.0
# Learning rate of the offsets of deformable convolutions relative to BASE_LR.
_C.SOLVER.DCONV_OFFSETS_LR_FACTOR = 1.0
# Momentum of SGD.
_C.SOLVER.MOMENTUM = 0.9
# Weight decay of all parameters but biases.
_C.SOLVER.WEIGHT_DECAY = 0.0005
# Weight decay of biases.
_C.SOLVER.WEIGHT_DECAY_BIAS = 0.0
# (ours) Course of the learning rate after the warm-up: multistep, cosine or constant.
_C.SOLVER.SCHEDULE = "multistep"
# multistep: the learning rate is multiplied by this at each of STEPS.
_C.SOLVER.GAMMA = 0.1
# multistep: 0-based iterations, increasing.
_C.SOLVER.STEPS = (30000,)
# The learning rate starts at this part of itself.
_C.SOLVER.WARMUP_FACTOR = 1.0 / 3
# Iterations of warm-up; 0 is off.
_C.SOLVER.WARMUP_ITERS = 500
# constant: WARMUP_FACTOR all through the warm-up; linear: from WARMUP_FACTOR to 1.
_C.SOLVER.WARMUP_METHOD = "linear"
# Iterations between two checkpoints.
_C.SOLVER.CHECKPOINT_PERIOD = 2500
# Images a step, over all processes together.
_C.SOLVER.IMS_PER_BATCH = 16
# (ours) Gradients are scaled down to this norm when theirs is larger; 0 is off.
_C.SOLVER.CLIP_GRAD_NORM = 0.0
# (ours) Names of hooks that modules of IMPORTS registered in engine.training.hooks.HOOKS; they are called after the log
# and before the checkpoints.
_C.SOLVER.HOOKS = ()
# (ours) Iterations between two lines of the log.
_C.SOLVER.LOG_PERIOD = 20
_C.SOLVER.AMP = CN()
# (ours) Compute in half precision where it is safe.
_C.SOLVER.AMP.ENABLED = False
# (ours) bfloat16 or float16.
_C.SOLVER.AMP.DTYPE = "bfloat16"

_C.TEST = CN()
# Images a step in testing, over all processes together.
_C.TEST.IMS_PER_BATCH = 8
# Largest number of detections kept for an image, over all classes.
_C.TEST.DETECTIONS_PER_IMG = 100
# (ours) A detection counts as right for the per-class score thresholds from this IoU on.
_C.TEST.THRESHOLD_IOU = 0.5
# (ours) Recall weighs this many times as much as precision in the f-measure that the thresholds
# maximise.
_C.TEST.THRESHOLD_BETA = 1.0
# (ours) raw: thresholds from what `score >= threshold` really gives; interpolated: the reference's rule, from COCO's
# interpolated precision at 101 recall points, which promises more than it keeps.
_C.TEST.THRESHOLD_RULE = "raw"

# Test-time augmentation: detect in resized and mirrored copies of an image and merge.
_C.TEST.BBOX_AUG = CN()
# Turns it on.
_C.TEST.BBOX_AUG.ENABLED = False
# True: suppress and cut each pass to detections, keep those in SCALE_RANGES, merge them by MERGE_TYPE.
# False: suppress the candidates of all passes together (plain NMS).
_C.TEST.BBOX_AUG.VOTE = False
# Boxes vote together from this IoU on.
_C.TEST.BBOX_AUG.VOTE_TH = 0.66
# vote: mean box, largest score; soft-vote: besides, each voter stays with a lowered score; nms: plain NMS.
_C.TEST.BBOX_AUG.MERGE_TYPE = "vote"
# Add a mirrored pass at the plain scale.
_C.TEST.BBOX_AUG.H_FLIP = False
# Short sides of the further passes, pixels.
_C.TEST.BBOX_AUG.SCALES = ()
# With VOTE: for each of SCALES the (low, high) of the box sizes, sqrt(area) in pixels of the scaled image, kept
# there, both ends excluded; () keeps all.
_C.TEST.BBOX_AUG.SCALE_RANGES = ()
# Limit of the long side of SCALES; with VOTE, scales below 800 use INPUT.MAX_SIZE_TEST instead.
_C.TEST.BBOX_AUG.MAX_SIZE = 4000
# Add a mirrored pass at each of SCALES.
_C.TEST.BBOX_AUG.SCALE_H_FLIP = False

DEFAULTS = _C
