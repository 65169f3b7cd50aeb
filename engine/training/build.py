"""cfg -> a finished training run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from engine import distributed
from engine.build import prepare, write_config
from engine.checkpoint import FORMAT, Checkpointer
from engine.checkpoint.build import load_initial_weights
from engine.data.build import build_train_loader
from engine.errors import InputError
from engine.evaluation.build import check_test_sets
from engine.log import get_logger
from engine.modeling.build import build_device, build_model
from engine.registry import lookup
from engine.solver.build import build_optimizer, build_schedule
from engine.training import loop
from engine.training.hooks import FINAL, HOOKS, CheckpointHook, LogHook, Run
from engine.training.precision import Precision
from engine.training.resume import restore, resume_point


def train(cfg: CfgNode, resume: bool = False, will_test: bool = False) -> nn.Module:
    """Train the model of `cfg` and leave everything in `OUTPUT_DIR`; see the README for the files.

    Args:
        cfg: a configuration.
        resume: continue from the last checkpoint of `OUTPUT_DIR`, if there is one. Otherwise start from `MODEL.WEIGHT`.
        will_test: `evaluate` follows, so mistakes in the test sets are to be said now, not after the training.

    Returns:
        The trained model, in training mode.

    Raises:
        InputError: bad configuration, data or checkpoint; a loss that is not finite.
    """
    if cfg.SOLVER.MAX_ITER < 1:
        raise InputError("SOLVER.MAX_ITER is 0, so there is nothing to train; to test only, use tools/test_net.py")
    prepare(cfg, resume)
    write_config(cfg)
    logger = get_logger(__name__)
    device = build_device(cfg)
    checkpointer = Checkpointer(Path(cfg.OUTPUT_DIR))
    if not resume and distributed.is_main():
        checkpointer.set_aside()
    last = resume_point(checkpointer) if resume else None
    start = last[1]["iteration"] if last else 0
    loader = build_train_loader(cfg, start_iteration=start)
    if will_test:
        check_test_sets(cfg, loader.dataset.class_names)
    model = build_model(cfg, loader.dataset.class_names)
    optimizer = build_optimizer(cfg, model)
    precision = build_precision(cfg, device)
    if last:
        restore(last, model, optimizer, precision, cfg.SOLVER.OPTIMIZER)
        if start >= cfg.SOLVER.MAX_ITER:
            logger.info("nothing left to train: %s is at iteration %d of %d", last[0], start, cfg.SOLVER.MAX_ITER)
        else:
            logger.info("resuming from %s at iteration %d of %d", last[0], start, cfg.SOLVER.MAX_ITER)
    elif cfg.MODEL.WEIGHT:
        load_initial_weights(cfg, model)
    else:
        logger.info("MODEL.WEIGHT is empty: training from scratch")

    state = _checkpoint_content(cfg, model, optimizer, precision)
    hooks = [
        LogHook(Path(cfg.OUTPUT_DIR), cfg.SOLVER.LOG_PERIOD, cfg.SOLVER.MAX_ITER),
        *build_own_hooks(cfg, model, optimizer),
        CheckpointHook(checkpointer, state, cfg.SOLVER.CHECKPOINT_PERIOD),
    ]
    if start < cfg.SOLVER.MAX_ITER:
        loop.run(
            _parallel(model, device),
            loader,
            optimizer,
            build_schedule(cfg, optimizer),
            precision,
            hooks,
            start,
            cfg.SOLVER.CLIP_GRAD_NORM,
        )
    elif distributed.is_main() and not (checkpointer.output_dir / f"{FINAL}.pth").exists():
        checkpointer.save(FINAL, state(start))  # stopped between the last checkpoint and the end
    distributed.barrier()
    return model


def build_own_hooks(cfg: CfgNode, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[loop.Hook]:
    """The hooks of `SOLVER.HOOKS`, in this order."""
    run = Run(model, optimizer, Path(cfg.OUTPUT_DIR), cfg.SOLVER.MAX_ITER)
    return [lookup(HOOKS, name, "SOLVER.HOOKS")(run) for name in cfg.SOLVER.HOOKS]


def build_precision(cfg: CfgNode, device: torch.device) -> Precision:
    """The type of `SOLVER.AMP`."""
    amp = cfg.SOLVER.AMP
    return Precision(device, getattr(torch, amp.DTYPE) if amp.ENABLED else None)


def _parallel(model: nn.Module, device: torch.device) -> nn.Module:
    if distributed.world_size() == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def _checkpoint_content(
    cfg: CfgNode, model: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision
) -> Callable[[int], dict[str, Any]]:
    """What gives the content of a checkpoint after a number of iterations."""
    return lambda iteration: {
        "format": FORMAT,
        "model": model.state_dict(),
        "class_names": model.class_names,
        "thresholds": None,
        "iteration": iteration,
        "optimizer": optimizer.state_dict(),
        "optimizer_name": cfg.SOLVER.OPTIMIZER,
        "scaler": precision.state_dict(),
        "config": cfg.dump(),
    }
