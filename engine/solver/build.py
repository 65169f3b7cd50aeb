"""cfg -> optimizer and schedule."""

from __future__ import annotations

import torch
from fvcore.common.param_scheduler import ConstantParamScheduler
from torch import nn
from yacs.config import CfgNode

from engine.errors import InputError
from engine.solver import schedule
from engine.solver.optimizer import optimizer_by_name, parameter_groups


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `SOLVER.OPTIMIZER` over the trainable parameters of `model`."""
    groups = parameter_groups(
        model,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        bias_weight_decay=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        offset_lr_factor=cfg.SOLVER.DCONV_OFFSETS_LR_FACTOR,
    )
    return optimizer_by_name(cfg.SOLVER.OPTIMIZER, groups, cfg.SOLVER.MOMENTUM)


def build_schedule(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> schedule.Schedule:
    """The schedule of `SOLVER.SCHEDULE` with the warm-up of `SOLVER.WARMUP_*`."""
    solver = cfg.SOLVER
    schedulers = {
        "multistep": lambda: schedule.multistep(solver.STEPS, solver.GAMMA, solver.MAX_ITER),
        "cosine": schedule.cosine,
        "constant": lambda: ConstantParamScheduler(1.0),
    }
    for key, known in (("SCHEDULE", schedulers), ("WARMUP_METHOD", schedule.WARMUPS)):
        if solver[key] not in known:
            raise InputError(f"SOLVER.{key} {solver[key]} is not known; write one of {', '.join(known)}")
    return schedule.Schedule(
        optimizer,
        schedulers[solver.SCHEDULE](),
        solver.MAX_ITER,
        solver.WARMUP_METHOD,
        solver.WARMUP_FACTOR,
        solver.WARMUP_ITERS,
    )
