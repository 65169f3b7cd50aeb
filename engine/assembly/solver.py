"""cfg -> optimizer, length of the run and schedule."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import torch
from torch import nn
from yacs.config import CfgNode

from engine.log import get_logger
from engine.registry import lookup
from engine.solver.curves import SCHEDULES, ScheduleSettings
from engine.solver.optimizer import OPTIMIZERS, build_with, parameter_groups
from engine.solver.schedule import Schedule
from engine.solver.warmup import WARMUPS, Warmup


@dataclass(frozen=True)
class RunLength:
    """The length of a run in iterations."""

    max_iter: int
    steps: tuple[int, ...]  # milestones of `multistep`, 0-based, in ascending order
    validation_period: Fraction  # between two validations; 0 validates only at the end


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `SOLVER.OPTIMIZER` over the trainable parameters of `model`.

    Raises:
        InputError: there is no such optimizer, or a pattern of `SOLVER.PARAM_GROUPS` matches no parameter.
    """
    groups = parameter_groups(
        model,
        lr=base_lr(cfg),
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        bias_weight_decay=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        norm_weight_decay=cfg.SOLVER.WEIGHT_DECAY if cfg.SOLVER.WEIGHT_DECAY_NORM < 0 else cfg.SOLVER.WEIGHT_DECAY_NORM,
        offset_lr_factor=cfg.SOLVER.DCONV_OFFSETS_LR_FACTOR,
        backbone_lr_factor=cfg.SOLVER.BACKBONE_LR_FACTOR,
        layer_lr_factor=cfg.SOLVER.LAYER_LR_FACTOR,
        patterns=cfg.SOLVER.PARAM_GROUPS,
    )
    return build_with(lookup(OPTIMIZERS, cfg.SOLVER.OPTIMIZER, "SOLVER.OPTIMIZER"), groups, cfg.SOLVER.MOMENTUM)


def base_lr(cfg: CfgNode) -> float:
    """`SOLVER.BASE_LR`, scaled from `SOLVER.REFERENCE_BATCH` to the batch size of this run; the change is logged."""
    if cfg.SOLVER.REFERENCE_BATCH in (0, cfg.SOLVER.IMS_PER_BATCH):
        return cfg.SOLVER.BASE_LR
    rate = cfg.SOLVER.BASE_LR * cfg.SOLVER.IMS_PER_BATCH / cfg.SOLVER.REFERENCE_BATCH
    scaling = (cfg.SOLVER.BASE_LR, cfg.SOLVER.REFERENCE_BATCH, rate, cfg.SOLVER.IMS_PER_BATCH)
    get_logger(__name__).info("SOLVER.BASE_LR %g for %d images: %g for %d", *scaling)
    return rate


def run_length(cfg: CfgNode, num_images: int) -> RunLength:
    """The length of the run with epochs of `num_images` images, repeats included; keys in epochs override the others.

    The length and the milestones are rounded up to whole iterations: a batch may reach into the next pass.
    """
    epoch = Fraction(num_images, cfg.SOLVER.IMS_PER_BATCH)  # iterations in a pass over the images
    steps = [ceil(number * epoch) for number in cfg.SOLVER.STEPS_EPOCH]
    return RunLength(
        max_iter=ceil(cfg.SOLVER.MAX_EPOCH * epoch) or cfg.SOLVER.MAX_ITER,
        steps=tuple(steps or cfg.SOLVER.STEPS),
        validation_period=cfg.SOLVER.VALIDATION.PERIOD_EPOCH * epoch or Fraction(cfg.SOLVER.VALIDATION.PERIOD),
    )


def build_schedule(cfg: CfgNode, optimizer: torch.optim.Optimizer, length: RunLength) -> Schedule:
    """The schedule of `SOLVER.SCHEDULE` with the warm-up of `SOLVER.WARMUP_*`, for a run of `length`.

    Raises:
        InputError: there is no such schedule or warm-up, or `SOLVER.CYCLE.PEAK_MOMENTUM` cannot be used.
    """
    settings = ScheduleSettings(
        max_iter=length.max_iter,
        steps=length.steps,
        gamma=cfg.SOLVER.GAMMA,
        final=cfg.SOLVER.FINAL_LR_FACTOR,
        power=cfg.SOLVER.POLY_POWER,
        num_cycles=cfg.SOLVER.CYCLE.NUM,
        start=cfg.SOLVER.CYCLE.START_FACTOR,
        rise=cfg.SOLVER.CYCLE.RISE,
    )
    curves = lookup(SCHEDULES, cfg.SOLVER.SCHEDULE, "SOLVER.SCHEDULE")(settings)
    warmup_curve = lookup(WARMUPS, cfg.SOLVER.WARMUP_METHOD, "SOLVER.WARMUP_METHOD")
    warmup = Warmup(cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR, warmup_curve)
    return Schedule(optimizer, curves, length.max_iter, warmup, cfg.SOLVER.CYCLE.PEAK_MOMENTUM)
