"""cfg -> optimizer, length of the run and schedule."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import torch
from torch import nn
from yacs.config import CfgNode

from engine.log import get_logger
from engine.registry import lookup
from engine.solver.courses import SCHEDULES, Plan
from engine.solver.length import RunLength, iterations
from engine.solver.optimizer import OPTIMIZERS, build_with, parameter_groups
from engine.solver.schedule import Schedule
from engine.solver.warmup import WARMUPS, Warmup


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `SOLVER.OPTIMIZER` over the trainable parameters of `model`.

    Raises:
        InputError: there is no such optimizer, or a pattern of `SOLVER.PARAM_GROUPS` fits no parameter.
    """
    solver = cfg.SOLVER
    groups = parameter_groups(
        model,
        lr=base_lr(cfg),
        weight_decay=solver.WEIGHT_DECAY,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        bias_weight_decay=solver.WEIGHT_DECAY_BIAS,
        norm_weight_decay=solver.WEIGHT_DECAY if solver.WEIGHT_DECAY_NORM < 0 else solver.WEIGHT_DECAY_NORM,
        offset_lr_factor=solver.DCONV_OFFSETS_LR_FACTOR,
        backbone_lr_factor=solver.BACKBONE_LR_FACTOR,
        layer_lr_factor=solver.LAYER_LR_FACTOR,
        patterns=solver.PARAM_GROUPS,
    )
    return build_with(lookup(OPTIMIZERS, solver.OPTIMIZER, "SOLVER.OPTIMIZER"), groups, solver.MOMENTUM)


def base_lr(cfg: CfgNode) -> float:
    """`SOLVER.BASE_LR`, scaled from `SOLVER.REFERENCE_BATCH` to the batch of this run, which is logged."""
    given, meant_for, batch = cfg.SOLVER.BASE_LR, cfg.SOLVER.REFERENCE_BATCH, cfg.SOLVER.IMS_PER_BATCH
    if meant_for in (0, batch):
        return given
    rate = given * batch / meant_for
    get_logger(__name__).info("SOLVER.BASE_LR %g for %d images: %g for %d", given, meant_for, rate, batch)
    return rate


def run_length(cfg: CfgNode, num_images: int) -> RunLength:
    """How long the run is with `num_images` training images; keys that count epochs win over those in iterations.

    The end and the milestones are rounded up to whole iterations.
    """
    solver = cfg.SOLVER
    max_iter, *steps = (
        ceil(iterations(epochs, num_images, solver.IMS_PER_BATCH)) for epochs in (solver.MAX_EPOCH, *solver.STEPS_EPOCH)
    )
    period = iterations(solver.VALIDATION.PERIOD_EPOCH, num_images, solver.IMS_PER_BATCH)
    return RunLength(
        max_iter=max_iter or solver.MAX_ITER,
        steps=tuple(steps or solver.STEPS),
        validation_period=period or Fraction(solver.VALIDATION.PERIOD),
    )


def build_schedule(cfg: CfgNode, optimizer: torch.optim.Optimizer, length: RunLength) -> Schedule:
    """The schedule of `SOLVER.SCHEDULE` with the warm-up of `SOLVER.WARMUP_*`, over a run of `length`.

    Raises:
        InputError: there is no such schedule or warm-up, or no momentum for `SOLVER.CYCLE.PEAK_MOMENTUM`.
    """
    solver = cfg.SOLVER
    plan = Plan(
        max_iter=length.max_iter,
        steps=length.steps,
        gamma=solver.GAMMA,
        final=solver.FINAL_LR_FACTOR,
        power=solver.POLY_POWER,
        num_cycles=solver.CYCLE.NUM,
        start=solver.CYCLE.START_FACTOR,
        rise=solver.CYCLE.RISE,
    )
    course = lookup(SCHEDULES, solver.SCHEDULE, "SOLVER.SCHEDULE")(plan)
    curve = lookup(WARMUPS, solver.WARMUP_METHOD, "SOLVER.WARMUP_METHOD")
    warmup = Warmup(solver.WARMUP_ITERS, solver.WARMUP_FACTOR, curve)
    return Schedule(optimizer, course, length.max_iter, warmup, solver.CYCLE.PEAK_MOMENTUM)
