"""Keys of the training: optimizer, schedule, checkpoints, log, validation."""

from __future__ import annotations

from engine.config.declaration import MAX_BATCH, Entries, key

_FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

# One key after another as in a table, so that a search for a key shows its default too.
# fmt: off
_PARAM_GROUPS = Entries(
    "patterns of names",
    "{lr_factor: NUMBER, weight_decay: NUMBER}",
    {
        "lr_factor": key("SOLVER.PARAM_GROUPS.NAME.lr_factor", 1.0, "Multiplies what the other keys give.", at_least=0),
        "weight_decay": key("SOLVER.PARAM_GROUPS.NAME.weight_decay", 0.0, "Replaces what the other keys give.",
            at_least=0),
    },
)

GROUPS = {"SOLVER.VALIDATION": "(ours) Evaluation on DATASETS.VAL during training."}

KEYS = [
    key("SOLVER.MAX_ITER", 40000, "Training steps.", at_least=0),
    key("SOLVER.MAX_EPOCH", 0, "Length of the training in passes over the training images, instead of MAX_ITER "
        "(rounded up to whole steps); 0: MAX_ITER counts.", ours=True, between=(0, 10**6)),
    # The classes of torch.optim, except those that need a closure, sparse gradients or matrices only; a test compares.
    key("SOLVER.OPTIMIZER", "SGD", "A class of torch.optim (not LBFGS, SparseAdam or Muon), or one of your own.",
        ours=True,
        words=("SGD", "Adam", "AdamW", "Adadelta", "Adafactor", "Adagrad", "Adamax", "ASGD", "NAdam", "RAdam",
               "RMSprop", "Rprop"),
        registry="engine.solver.optimizer.OPTIMIZERS"),
    key("SOLVER.BASE_LR", 0.001, "Learning rate after the warm-up.", between=(0, 1e30)),
    key("SOLVER.REFERENCE_BATCH", 0, "Number of images per step that BASE_LR is meant for: BASE_LR is multiplied by "
        "IMS_PER_BATCH / REFERENCE_BATCH, which the log reports. 0 is off.", ours=True, between=(0, MAX_BATCH)),
    key("SOLVER.BIAS_LR_FACTOR", 2.0, "Learning rate of biases relative to BASE_LR.", at_least=0),
    key("SOLVER.DCONV_OFFSETS_LR_FACTOR", 1.0, "Learning rate of the offsets of deformable convolutions relative to "
        "BASE_LR.", at_least=0),
    key("SOLVER.BACKBONE_LR_FACTOR", 1.0, "Learning rate of the backbone (everything below `backbone.`, including the "
        "pyramid) relative to BASE_LR.", ours=True, at_least=0),
    key("SOLVER.LAYER_LR_FACTOR", 1.0, "Layer-wise decay: the rate of each stage of the backbone's body is this "
        "fraction of the rate of the stage above it. With f a ResNet's layer4 learns at f, layer3 at f^2, layer2 at "
        "f^3, layer1 at f^4 and stem at f^5, pyramid and heads at 1.", ours=True, between=(0, 1)),
    key("SOLVER.MOMENTUM", 0.9, "Momentum of SGD and RMSprop.", between=(0, 1)),
    key("SOLVER.WEIGHT_DECAY", 0.0005, "Weight decay of all parameters except biases.", at_least=0),
    key("SOLVER.WEIGHT_DECAY_BIAS", 0.0, "Weight decay of biases.", at_least=0),
    key("SOLVER.WEIGHT_DECAY_NORM", -1.0, "Weight decay of the scales of norms (batch, group, layer and instance "
        "norm); -1: WEIGHT_DECAY, as in the reference. Their biases use WEIGHT_DECAY_BIAS.", ours=True, at_least=-1),
    key("SOLVER.PARAM_GROUPS", {}, "Rates and decays by pattern of the parameter's name (`*` and `?` as in a shell; if "
        "several patterns fit a name, only the last one counts): {\"backbone.body.*\": {lr_factor: 0.1}, "
        "\"*.scales.*\": {weight_decay: 0.0}}. lr_factor multiplies what the keys above give, weight_decay replaces "
        "it.", ours=True, entries=_PARAM_GROUPS),
    key("SOLVER.SCHEDULE", "multistep", "Schedule of the learning rate; the warm-up multiplies it.", ours=True,
        words=("multistep", "cosine", "poly", "cyclic", "one_cycle", "constant"),
        registry="engine.solver.curves.SCHEDULES"),
    key("SOLVER.GAMMA", 0.1, "multistep: the learning rate is multiplied by this at each of STEPS.", at_least=0),
    key("SOLVER.STEPS", (30000,), "multistep: 0-based iterations, increasing.", at_least=0),
    key("SOLVER.STEPS_EPOCH", (), "multistep: passes over the training images, increasing, instead of STEPS (rounded "
        "up to whole steps); (): STEPS counts.", ours=True, type=tuple[int, ...], at_least=0),
    key("SOLVER.FINAL_LR_FACTOR", 0.0, "cosine, poly, one_cycle: the learning rate at the end of the training; cyclic: "
        "at the end of each cycle; relative to BASE_LR.", ours=True, at_least=0),
    key("SOLVER.POLY_POWER", 0.9, "poly: the learning rate is proportional to the remaining fraction of the training "
        "to this power.", ours=True, at_least=0),
    key("SOLVER.CYCLE.NUM", 1, "cyclic: number of equal cycles; in each of them the learning rate rises and falls "
        "linearly.", ours=True, at_least=1),
    key("SOLVER.CYCLE.START_FACTOR", 0.1, "cyclic, one_cycle: learning rate at the start of a cycle relative to "
        "BASE_LR, which is its peak. A cycle is its own warm-up: WARMUP_ITERS must be 0.", ours=True, at_least=0),
    key("SOLVER.CYCLE.RISE", 0.4, "cyclic, one_cycle: fraction of a cycle in which the learning rate rises.", ours=True,
        between=(0, 1)),
    key("SOLVER.CYCLE.PEAK_MOMENTUM", 0.0, "cyclic, one_cycle: momentum (or the first beta of Adam) where the learning "
        "rate peaks; at the ends of a cycle it is MOMENTUM (or the optimizer's own beta), which must not be lower. 0 "
        "leaves it alone.", ours=True, between=(0, 1)),
    key("SOLVER.WARMUP_FACTOR", 1.0 / 3, "The learning rate starts at this fraction of its full value.", at_least=0),
    key("SOLVER.WARMUP_ITERS", 500, "Iterations of warm-up; 0 is off.", at_least=0),
    key("SOLVER.WARMUP_METHOD", "linear", "constant: WARMUP_FACTOR throughout the warm-up; linear: from WARMUP_FACTOR "
        "to 1 linearly; exponential (ours): in steps of equal ratio.", words=("constant", "linear", "exponential"),
        registry="engine.solver.warmup.WARMUPS"),
    key("SOLVER.CHECKPOINT_PERIOD", 2500, "Iterations between two checkpoints.", at_least=0),
    key("SOLVER.KEEP_CHECKPOINTS", 0, "Keep this many of the newest numbered checkpoints; 0 keeps all.", ours=True,
        at_least=0),
    key("SOLVER.IMS_PER_BATCH", 16, "Images per step, over all processes together.", between=(1, MAX_BATCH)),
    key("SOLVER.ACCUMULATE", 1, "Gradient accumulation: a step consists of this many passes of IMS_PER_BATCH / "
        "ACCUMULATE images each. It takes less memory; rates and iterations keep their meaning.", ours=True,
        between=(1, MAX_BATCH)),
    key("SOLVER.CLIP_GRAD_NORM", 0.0, "Gradients are scaled down to this norm when theirs is larger; 0 is off.",
        ours=True, at_least=0),
    key("SOLVER.CLIP_GRAD_VALUE", 0.0, "Each gradient is clipped to [-this, this], before CLIP_GRAD_NORM; 0 is off.",
        ours=True, at_least=0),
    key("SOLVER.EMA_DECAY", 0.0, "Exponential moving average of the weights with this decay per step; tests, "
        "validation and `model` of the checkpoints use the average. 0 is off; 0.999 and 0.9998 are usual.", ours=True,
        between=(0, 1)),
    key("SOLVER.COMPILE", False, "Compile the backbone with torch.compile: the first step takes a minute, the others "
        "less time than before.", ours=True),
    key("SOLVER.HOOKS", (), "Names of your own hooks; they are called after the log and before the checkpoints.",
        ours=True, type=tuple[str, ...], registry="engine.training.hooks.HOOKS"),
    key("SOLVER.LOG_PERIOD", 20, "Iterations between two lines of the log.", ours=True, at_least=1),
    key("SOLVER.WRITERS", (), "Where the log's figures go besides the console and metrics.jsonl.", ours=True,
        type=tuple[str, ...], words=("tensorboard", "wandb", "mlflow"), registry="engine.training.writers.WRITERS"),
    key("SOLVER.AMP.ENABLED", False, "Compute in half precision where it is safe.", ours=True),
    key("SOLVER.AMP.DTYPE", "bfloat16", "The half-precision type.", ours=True, words=("bfloat16", "float16")),
    key("SOLVER.VALIDATION.PERIOD", 0, "Iterations between validations; 0: see PERIOD_EPOCH.", ours=True, at_least=0),
    key("SOLVER.VALIDATION.PERIOD_EPOCH", 0, "Passes over the training images between two validations; 0: see PERIOD. "
        "Both 0: only at the end.", ours=True, at_least=0),
    key("SOLVER.VALIDATION.METRIC", "AP", "What model_best.pth is best by: a figure of metrics.json (the mean over "
        "DATASETS.VAL), or loss (the smallest).", ours=True, words=(*_FIGURES, "loss")),
    key("SOLVER.VALIDATION.PATIENCE", 0, "Training ends after this many validations in a row without a better METRIC; "
        "0 is off.", ours=True, at_least=0),
    key("SOLVER.VALIDATION.LOSS", True, "Compute the losses on DATASETS.VAL too.", ours=True),
]
# fmt: on
