"""The rules of `rules.py` that speak of optimizer, schedule and length of the run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from yacs.config import CfgNode

from engine.config.param_groups import idle_patterns
from engine.config.schema import WORDS

Broken = Iterator[tuple[tuple[str, ...], str]]

_CYCLES = ("cyclic", "one_cycle")


def solver(cfg: CfgNode) -> Broken:
    """The rules that `SOLVER` breaks, but for those of its `VALIDATION`."""
    keys = cfg.SOLVER
    for name in ("STEPS", "STEPS_EPOCH"):
        if any(first >= second for first, second in pairwise(keys[name])):
            yield (f"SOLVER.{name}",), f"SOLVER.{name} must increase, got {keys[name]}"
    if keys.SCHEDULE in WORDS["SOLVER.SCHEDULE"].allowed:  # one of the user's own may do as it likes
        yield from _schedule(keys)
    if keys.WARMUP_METHOD == "exponential" and keys.WARMUP_ITERS > 0 and keys.WARMUP_FACTOR == 0:
        yield (
            ("SOLVER.WARMUP_FACTOR", "SOLVER.WARMUP_METHOD"),
            "SOLVER.WARMUP_METHOD exponential never leaves SOLVER.WARMUP_FACTOR 0.0; write 0.001",
        )
    if -1 < keys.WEIGHT_DECAY_NORM < 0:
        yield (
            ("SOLVER.WEIGHT_DECAY_NORM",),
            f"SOLVER.WEIGHT_DECAY_NORM must be 0 or more, or -1 for WEIGHT_DECAY, got {keys.WEIGHT_DECAY_NORM}",
        )
    if keys.IMS_PER_BATCH % keys.ACCUMULATE:
        yield (
            ("SOLVER.ACCUMULATE", "SOLVER.IMS_PER_BATCH"),
            f"SOLVER.IMS_PER_BATCH {keys.IMS_PER_BATCH} cannot be shared out evenly over SOLVER.ACCUMULATE "
            f"{keys.ACCUMULATE} passes; change one of them",
        )
    for key, sentence in idle_patterns(keys.PARAM_GROUPS):
        yield (key,), sentence
    if keys.HOOKS and not cfg.IMPORTS:
        yield (
            ("SOLVER.HOOKS", "IMPORTS"),
            f"SOLVER.HOOKS names {keys.HOOKS[0]}, but IMPORTS names no module that could register it",
        )


def _schedule(keys: CfgNode) -> Broken:
    name, peak = keys.SCHEDULE, keys.CYCLE.PEAK_MOMENTUM
    if keys.STEPS_EPOCH and name != "multistep":
        yield (
            ("SOLVER.STEPS_EPOCH", "SOLVER.SCHEDULE"),
            f"SOLVER.STEPS_EPOCH are milestones of multistep, but SOLVER.SCHEDULE is {name}; write one or the other",
        )
    if name in _CYCLES and keys.WARMUP_ITERS > 0:
        yield (
            ("SOLVER.WARMUP_ITERS", "SOLVER.SCHEDULE"),
            f"SOLVER.SCHEDULE {name} has a rise of its own, but SOLVER.WARMUP_ITERS is {keys.WARMUP_ITERS}; write 0",
        )
    if peak > 0 and name not in _CYCLES:
        yield (
            ("SOLVER.CYCLE.PEAK_MOMENTUM", "SOLVER.SCHEDULE"),
            f"SOLVER.CYCLE.PEAK_MOMENTUM is {peak}, but SOLVER.SCHEDULE {name} leaves momentum alone; write 0",
        )
