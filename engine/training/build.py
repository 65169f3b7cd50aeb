"""cfg -> a finished training run."""

from __future__ import annotations

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
from engine.log import get_logger
from engine.modeling.build import build_device, build_model
from engine.solver.build import build_optimizer, build_schedule
from engine.training import loop
from engine.training.hooks import CheckpointHook, LogHook
from engine.training.precision import Precision


def train(cfg: CfgNode, resume: bool = False) -> nn.Module:
    """Train the model of `cfg` and leave everything in `OUTPUT_DIR`; see the README for the files.

    Args:
        cfg: a configuration.
        resume: continue from the last checkpoint of `OUTPUT_DIR`, if there is one. Otherwise start from `MODEL.WEIGHT`.

    Returns:
        The trained model, in training mode.

    Raises:
        InputError: bad configuration, data or checkpoint; a loss that is not finite.
    """
    prepare(cfg, resume)
    write_config(cfg)
    logger = get_logger(__name__)
    device = build_device(cfg)
    checkpointer = Checkpointer(Path(cfg.OUTPUT_DIR))
    last = checkpointer.load_last() if resume else None
    start = last[1]["iteration"] if last else 0
    if start >= cfg.SOLVER.MAX_ITER:
        logger.info("nothing to do: %s is already at iteration %d of %d", last[0], start, cfg.SOLVER.MAX_ITER)

    loader = build_train_loader(cfg, start_iteration=start)
    model = build_model(cfg, loader.dataset.class_names)
    optimizer = build_optimizer(cfg, model)
    precision = build_precision(cfg, device)
    if last:
        logger.info("resuming from %s at iteration %d", last[0], start)
        _restore(last, model, optimizer, precision)
    elif cfg.MODEL.WEIGHT:
        load_initial_weights(cfg, model)
    else:
        logger.info("MODEL.WEIGHT is empty: training from scratch")

    def state(iteration: int) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model": model.state_dict(),
            "class_names": model.class_names,
            "thresholds": None,
            "iteration": iteration,
            "optimizer": optimizer.state_dict(),
            "scaler": precision.scaler.state_dict(),
            "config": cfg.dump(),
        }

    hooks = [
        LogHook(Path(cfg.OUTPUT_DIR), cfg.SOLVER.LOG_PERIOD, cfg.SOLVER.MAX_ITER),
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
    distributed.barrier()
    return model


def build_precision(cfg: CfgNode, device: torch.device) -> Precision:
    """The type of `SOLVER.AMP`."""
    amp = cfg.SOLVER.AMP
    return Precision(device, getattr(torch, amp.DTYPE) if amp.ENABLED else None)


def _parallel(model: nn.Module, device: torch.device) -> nn.Module:
    if distributed.world_size() == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def _restore(
    last: tuple[Path, dict[str, Any]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
) -> None:
    path, state = last
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        precision.scaler.load_state_dict(state["scaler"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} does not fit this configuration ({reason}); to start anew from its weights, leave out --resume "
            f"and set MODEL.WEIGHT {path}"
        ) from error
