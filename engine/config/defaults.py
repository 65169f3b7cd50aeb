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
# (ours) Seed of weights, sampling and augmentation, below 2^32; -1 draws one and writes it to the log.
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
# (ours) Names of the data sets to evaluate on during training, see SOLVER.VALIDATION.
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
# (ours) Length of the training in passes over the training images, instead of MAX_ITER (rounded up to whole steps);
# 0: MAX_ITER counts.
_C.SOLVER.MAX_EPOCH = 0
# (ours) Name of a torch.optim class (not LBFGS, SparseAdam or Muon), or of one that a module of IMPORTS registered in
# engine.solver.optimizer.OPTIMIZERS.
_C.SOLVER.OPTIMIZER = "SGD"
# Learning rate after the warm-up.
_C.SOLVER.BASE_LR = 0.001
# (ours) BASE_LR is meant for so many images a step: it is multiplied by IMS_PER_BATCH / REFERENCE_BATCH, which the log
# says. 0 is off.
_C.SOLVER.REFERENCE_BATCH = 0
# Learning rate of biases relative to BASE_LR.
_C.SOLVER.BIAS_LR_FACTOR = 2.0
# Learning rate of the offsets of deformable convolutions relative to BASE_LR.
_C.SOLVER.DCONV_OFFSETS_LR_FACTOR = 1.0
# (ours) Learning rate of the backbone (all below `backbone.`, its pyramid too) relative to BASE_LR.
_C.SOLVER.BACKBONE_LR_FACTOR = 1.0
# (ours) Layer-wise decay: each stage of the backbone's body learns at this part of the rate of what is above it. With f
# a ResNet's layer4 learns at f, layer3 at f^2, layer2 at f^3, layer1 at f^4 and stem at f^5, pyramid and heads at 1.
_C.SOLVER.LAYER_LR_FACTOR = 1.0
# Momentum of SGD and RMSprop.
_C.SOLVER.MOMENTUM = 0.9
# Weight decay of all parameters but biases.
_C.SOLVER.WEIGHT_DECAY = 0.0005
# Weight decay of biases.
_C.SOLVER.WEIGHT_DECAY_BIAS = 0.0
# (ours) Weight decay of the scales of norms (batch, group, layer and instance norm); -1: WEIGHT_DECAY, as in the
# reference. Their biases have WEIGHT_DECAY_BIAS.
_C.SOLVER.WEIGHT_DECAY_NORM = -1.0
# (ours) Rates and decays by pattern of the parameter's name (`*` and `?` as in a shell; of the patterns that fit a name
# the last alone counts): {"backbone.body.*": {lr_factor: 0.1}, "*.scales.*": {weight_decay: 0.0}}. lr_factor multiplies
# what the keys above give, weight_decay replaces it.
_C.SOLVER.PARAM_GROUPS = CN(new_allowed=True)
# (ours) Course of the learning rate, by which the warm-up is multiplied: multistep, cosine, poly, cyclic, one_cycle,
# constant, or one that a module of IMPORTS registered in engine.solver.courses.SCHEDULES.
_C.SOLVER.SCHEDULE = "multistep"
# multistep: the learning rate is multiplied by this at each of STEPS.
_C.SOLVER.GAMMA = 0.1
# multistep: 0-based iterations, increasing.
_C.SOLVER.STEPS = (30000,)
# (ours) multistep: passes over the training images, increasing, instead of STEPS (rounded up to whole steps);
# (): STEPS counts.
_C.SOLVER.STEPS_EPOCH = ()
# (ours) cosine, poly, one_cycle: where the learning rate ends, cyclic: where each cycle does; relative to BASE_LR.
_C.SOLVER.FINAL_LR_FACTOR = 0.0
# (ours) poly: the learning rate falls with the remaining part of the training to the power of this.
_C.SOLVER.POLY_POWER = 0.9
_C.SOLVER.CYCLE = CN()
# (ours) cyclic: number of equal cycles, in each of which the learning rate rises and falls along a line.
_C.SOLVER.CYCLE.NUM = 1
# (ours) cyclic, one_cycle: learning rate at the start of a cycle relative to BASE_LR, which is its peak. A cycle is its
# own warm-up: WARMUP_ITERS must be 0.
_C.SOLVER.CYCLE.START_FACTOR = 0.1
# (ours) cyclic, one_cycle: part of a cycle in which the learning rate rises.
_C.SOLVER.CYCLE.RISE = 0.4
# (ours) cyclic, one_cycle: momentum (or the first beta of Adam) where the learning rate peaks; at the ends of a cycle
# it is MOMENTUM (or the optimizer's own beta), which must not be lower. 0 leaves it alone.
_C.SOLVER.CYCLE.PEAK_MOMENTUM = 0.0
# The learning rate starts at this part of itself.
_C.SOLVER.WARMUP_FACTOR = 1.0 / 3
# Iterations of warm-up; 0 is off.
_C.SOLVER.WARMUP_ITERS = 500
# constant: WARMUP_FACTOR all through the warm-up; linear: from WARMUP_FACTOR to 1 along a line; exponential (ours): in
# steps of equal ratio; or one that a module of IMPORTS registered in engine.solver.warmup.WARMUPS.
_C.SOLVER.WARMUP_METHOD = "linear"
# Iterations between two checkpoints.
_C.SOLVER.CHECKPOINT_PERIOD = 2500
# (ours) Keep so many of the newest numbered checkpoints; 0 keeps all.
_C.SOLVER.KEEP_CHECKPOINTS = 0
# Images a step, over all processes together.
_C.SOLVER.IMS_PER_BATCH = 16
# (ours) Gradient accumulation: a step is made of so many passes of IMS_PER_BATCH / ACCUMULATE images each. Memory
# falls; rates and iterations keep their meaning.
_C.SOLVER.ACCUMULATE = 1
# (ours) Gradients are scaled down to this norm when theirs is larger; 0 is off.
_C.SOLVER.CLIP_GRAD_NORM = 0.0
# (ours) Each gradient is cut to [-this, this], before CLIP_GRAD_NORM; 0 is off.
_C.SOLVER.CLIP_GRAD_VALUE = 0.0
# (ours) Exponential moving average of the weights with this decay a step; tests, validation and `model` of the
# checkpoints take the average. 0 is off; 0.999 and 0.9998 are usual.
_C.SOLVER.EMA_DECAY = 0.0
# (ours) Compile the backbone with torch.compile: the first step takes a minute, the others less than before.
_C.SOLVER.COMPILE = False
# (ours) Names of hooks that modules of IMPORTS registered in engine.training.hooks.HOOKS; they are called after the log
# and before the checkpoints.
_C.SOLVER.HOOKS = ()
# (ours) Iterations between two lines of the log.
_C.SOLVER.LOG_PERIOD = 20
# (ours) Where the log's figures go besides the console and metrics.jsonl: tensorboard, wandb, mlflow, or writers that
# modules of IMPORTS registered in engine.training.writers.WRITERS.
_C.SOLVER.WRITERS = ()
_C.SOLVER.AMP = CN()
# (ours) Compute in half precision where it is safe.
_C.SOLVER.AMP.ENABLED = False
# (ours) bfloat16 or float16.
_C.SOLVER.AMP.DTYPE = "bfloat16"
# (ours) Evaluation on DATASETS.VAL during training.
_C.SOLVER.VALIDATION = CN()
# (ours) Iterations between two validations; 0: see PERIOD_EPOCH.
_C.SOLVER.VALIDATION.PERIOD = 0
# (ours) Passes over the training images between two validations; 0: see PERIOD. Both 0: only at the end.
_C.SOLVER.VALIDATION.PERIOD_EPOCH = 0
# (ours) What model_best.pth is best by: a figure of metrics.json (AP, AP50, AR100, ...; the mean over DATASETS.VAL) or
# loss (smallest).
_C.SOLVER.VALIDATION.METRIC = "AP"
# (ours) Training ends after so many validations in a row without a better METRIC; 0 is off.
_C.SOLVER.VALIDATION.PATIENCE = 0
# (ours) Compute the losses on DATASETS.VAL too.
_C.SOLVER.VALIDATION.LOSS = True

_C.TEST = CN()
# Images a step in testing, over all processes together.
_C.TEST.IMS_PER_BATCH = 8
# Largest number of detections kept for an image, over all classes; 0: no limit.
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
