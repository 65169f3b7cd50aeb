"""The rules about optimizer, schedule, length of the run and validation."""

from __future__ import annotations

from yacs.config import CfgNode

from engine.config.comparisons import Broken, increasing, value_of
from engine.config.parts import is_built_in

_CYCLES = ("cyclic", "one_cycle")


def solver(tree: CfgNode) -> Broken:
    """The rules that `SOLVER` breaks, except those about its `VALIDATION`."""
    yield from increasing(tree, "SOLVER.STEPS")
    yield from increasing(tree, "SOLVER.STEPS_EPOCH")
    if is_built_in("SOLVER.SCHEDULE", tree.SOLVER.SCHEDULE):  # one of the user's own may use any key
        yield from _schedule(tree)
    never_rises = tree.SOLVER.WARMUP_METHOD == "exponential" and tree.SOLVER.WARMUP_FACTOR == 0
    if never_rises and tree.SOLVER.WARMUP_ITERS > 0:
        yield (
            ("SOLVER.WARMUP_FACTOR", "SOLVER.WARMUP_METHOD"),
            "SOLVER.WARMUP_METHOD exponential never leaves SOLVER.WARMUP_FACTOR 0.0; write 0.001",
        )
    if -1 < tree.SOLVER.WEIGHT_DECAY_NORM < 0:
        key = "SOLVER.WEIGHT_DECAY_NORM"
        yield (key,), f"{key} must be 0 or more, or -1 for WEIGHT_DECAY, got {value_of(tree, key)}"
    if tree.SOLVER.IMS_PER_BATCH % tree.SOLVER.ACCUMULATE:
        yield (
            ("SOLVER.ACCUMULATE", "SOLVER.IMS_PER_BATCH"),
            f"SOLVER.IMS_PER_BATCH {tree.SOLVER.IMS_PER_BATCH} cannot be divided evenly into SOLVER.ACCUMULATE "
            f"{tree.SOLVER.ACCUMULATE} passes; change one of them",
        )
    for pattern, fields in tree.SOLVER.PARAM_GROUPS.items():
        if not fields:
            key = f"SOLVER.PARAM_GROUPS.{pattern}"
            yield (key,), f"{key} changes nothing; write lr_factor or weight_decay below it"


def _schedule(tree: CfgNode) -> Broken:
    name, peak = tree.SOLVER.SCHEDULE, tree.SOLVER.CYCLE.PEAK_MOMENTUM
    if tree.SOLVER.STEPS_EPOCH and name != "multistep":
        yield (
            ("SOLVER.STEPS_EPOCH", "SOLVER.SCHEDULE"),
            f"SOLVER.STEPS_EPOCH is for multistep, but SOLVER.SCHEDULE is {name}; remove one of them",
        )
    if name in _CYCLES and tree.SOLVER.WARMUP_ITERS > 0:
        yield (
            ("SOLVER.WARMUP_ITERS", "SOLVER.SCHEDULE"),
            f"SOLVER.SCHEDULE {name} has its own warm-up, but SOLVER.WARMUP_ITERS is {tree.SOLVER.WARMUP_ITERS}; "
            "write 0",
        )
    if peak > 0 and name not in _CYCLES:
        yield (
            ("SOLVER.CYCLE.PEAK_MOMENTUM", "SOLVER.SCHEDULE"),
            f"SOLVER.CYCLE.PEAK_MOMENTUM is {peak}, but SOLVER.SCHEDULE {name} does not change the momentum; write 0",
        )


def validation(tree: CfgNode) -> Broken:
    """The rules that `SOLVER.VALIDATION` breaks."""
    periods = ("SOLVER.VALIDATION.PERIOD", "SOLVER.VALIDATION.PERIOD_EPOCH")
    patience = "SOLVER.VALIDATION.PATIENCE"
    written = [key for key in (*periods, patience) if value_of(tree, key)]
    if written and not tree.DATASETS.VAL:
        yield (*written, "DATASETS.VAL"), f"{written[0]} is set, but DATASETS.VAL names no data set to validate on"
    if {*periods} <= {*written}:
        yield periods, f"{' and '.join(periods)} are both set; keep one of them"
    if written == [patience]:
        only_one = "counts validations, but there is only one, at the end; set SOLVER.VALIDATION.PERIOD"
        yield (patience,), f"{patience} {only_one}"
    if tree.SOLVER.VALIDATION.METRIC == "loss" and not tree.SOLVER.VALIDATION.LOSS:
        yield (
            ("SOLVER.VALIDATION.METRIC", "SOLVER.VALIDATION.LOSS"),
            "SOLVER.VALIDATION.METRIC is loss, but SOLVER.VALIDATION.LOSS is off; write LOSS: True",
        )
