"""cfg -> a complete training run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from yacs.config import CfgNode

from engine import distributed
from engine.assembly.data import VALUE_RANGE, build_train_dataset, build_train_loader, set_value_range
from engine.assembly.device import build_device
from engine.assembly.doctor import summarize_train_data
from engine.assembly.model import build_model
from engine.assembly.process import prepare, releasing_output_dir, write_config
from engine.assembly.solver import RunLength, build_optimizer, build_schedule, run_length
from engine.assembly.testing import Validation, check_test_sets
from engine.assembly.weights import load_initial_weights, stored_conventions
from engine.checkpoint import Checkpointer
from engine.config import changes
from engine.data.loader import BatchLoader
from engine.data.workers import naming_dead_workers
from engine.device import explaining_out_of_memory, is_native
from engine.errors import InputError
from engine.log import CONFIG_FILE, get_logger
from engine.registry import lookup
from engine.solver.schedule import Schedule
from engine.training import loop
from engine.training.ema import EMAHook
from engine.training.hooks import FINAL, HOOKS, CheckpointHook, Run
from engine.training.interrupt import InterruptHook
from engine.training.log_hook import LogHook
from engine.training.nonfinite import NonFinite, save_batches
from engine.training.precision import Clipping, Precision
from engine.training.progress import ProgressHook
from engine.training.resume import TrainingState, resume_point
from engine.training.validation import ValidationHook
from engine.training.writers import METRICS_FILE, WRITERS, Writer

FILES_OF_A_RUN = (CONFIG_FILE, METRICS_FILE, "wandb_run", "mlflow_run", "tensorboard", "inference")
"""What a run writes besides its checkpoints and its log."""


@releasing_output_dir
def train(cfg: CfgNode, resume: bool = False, will_test: bool = False) -> nn.Module:
    """Train the model of `cfg` and write everything to `OUTPUT_DIR`; the README lists the files.

    Args:
        resume: continue from the last checkpoint in `OUTPUT_DIR`, if there is one. Otherwise start from `MODEL.WEIGHT`.
        will_test: `evaluate` follows, so mistakes in the test sets are reported now and not after the training.

    Returns:
        The trained model, in training mode.

    Raises:
        InputError: bad configuration, data or checkpoint; another run writes into `OUTPUT_DIR`; a loss or gradient that
            is not finite; no GPU memory left.
        Interrupted: a signal ended the training; a checkpoint was written.
    """
    if not (cfg.SOLVER.MAX_ITER or cfg.SOLVER.MAX_EPOCH):
        raise InputError("SOLVER.MAX_ITER is 0, so there is nothing to train; to test, use tools/test_net.py")
    resume = prepare(cfg, resume)
    device = build_device(cfg)
    checkpointer = Checkpointer(Path(cfg.OUTPUT_DIR))
    last = resume_point(checkpointer) if resume else None
    start = last[1]["iteration"] if last else 0
    if last:
        set_value_range(cfg, (last[1].get("conventions") or {}).get(VALUE_RANGE))
    dataset = build_train_dataset(cfg)
    summaries = summarize_train_data(cfg, dataset)
    loader = build_train_loader(cfg, start, dataset)
    set_value_range(cfg, dataset.value_range)
    length = run_length(cfg, loader.batch_sampler.epoch_length)
    if will_test:
        check_test_sets(cfg, dataset.class_names)
    validation = Validation(cfg, dataset.class_names) if cfg.DATASETS.VAL else None
    model = build_model(cfg, dataset.class_names)
    optimizer = build_optimizer(cfg, model)
    schedule = build_schedule(cfg, optimizer, length)
    if not last and cfg.MODEL.WEIGHT:
        load_initial_weights(cfg, model, checks_images=True)
    ema = EMAHook(model, cfg.SOLVER.EMA_DECAY) if cfg.SOLVER.EMA_DECAY else None
    state = TrainingState(model, optimizer, cfg.SOLVER.OPTIMIZER, build_precision(cfg, device), ema)
    is_final = last is not None and last[0].stem == FINAL
    data = {each.name: each.record() for each in summaries}
    state.hooks.extend(_build_hooks(cfg, state, checkpointer, validation, length, data, is_final))
    if last:
        state.restore(*last)
    _begin(cfg, checkpointer, is_new=last is None)
    _log_start(cfg, last, length.max_iter)
    del last  # frees the memory of a model and its optimizer
    if not (is_final and start >= length.max_iter):
        _run(cfg, state, loader, schedule, start)
    distributed.barrier()
    if ema:
        model.load_state_dict(ema.model.state_dict())
    return model


def _build_hooks(
    cfg: CfgNode,
    state: TrainingState,
    checkpointer: Checkpointer,
    validation: Validation | None,
    length: RunLength,
    data: Mapping[str, Any],
    is_final: bool,
) -> list[loop.Hook]:
    """The hooks in the order of their calls: those whose state a checkpoint holds come before those that write it."""

    fixed: dict[str, Any] = {"config": cfg.dump(), "conventions": stored_conventions(cfg)}

    def snapshot(iteration: int, buffers: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        return {**state.checkpoint(iteration, buffers), **fixed}

    run = Run(state.model, state.optimizer, Path(cfg.OUTPUT_DIR), length.max_iter)
    log = LogHook(run, cfg.SOLVER.LOG_PERIOD, build_writers(cfg, run), data)
    own = [lookup(HOOKS, name, "SOLVER.HOOKS")(run) for name in cfg.SOLVER.HOOKS]
    hooks = [log, ProgressHook(run), *([state.ema] if state.ema else []), *own]
    if validation:
        hooks.append(
            ValidationHook(
                run,
                partial(validation, state.ema.model if state.ema else state.model),
                log.write,
                checkpointer,
                snapshot,
                metric=cfg.SOLVER.VALIDATION.METRIC,
                period=length.validation_period,
                max_iter=length.max_iter,
                patience=cfg.SOLVER.VALIDATION.PATIENCE,
            )
        )
    hooks += [
        CheckpointHook(
            run, checkpointer, snapshot, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.KEEP_CHECKPOINTS, is_final
        ),
        InterruptHook(run, checkpointer, snapshot),
    ]
    return hooks


def _begin(cfg: CfgNode, checkpointer: Checkpointer, is_new: bool) -> None:
    """Claim the output folder for this run, after all checks, so that a mistake changes no file."""
    # The initial weights may come from the earlier run that is moved now, so every process must have read them.
    distributed.barrier()
    folder = Path(os.path.realpath(cfg.OUTPUT_DIR))
    if is_new and distributed.is_main():
        moved_to, weight = checkpointer.set_aside(FILES_OF_A_RUN), Path(cfg.MODEL.WEIGHT)
        if moved_to and weight.resolve().parent == folder and (moved_to / weight.name).exists():
            cfg.defrost()
            cfg.MODEL.WEIGHT = str(moved_to / weight.name)
            cfg.freeze()
    distributed.mark_begun(str(folder))
    write_config(cfg)


def _log_start(cfg: CfgNode, last: tuple[Path, dict[str, Any]] | None, max_iter: int) -> None:
    logger = get_logger(__name__)
    if not last:
        if not cfg.MODEL.WEIGHT:
            logger.info("MODEL.WEIGHT is empty: training from scratch")
        return
    path, state = last
    done = state["iteration"]
    if done >= max_iter:
        logger.info("nothing left to train: %s is at iteration %d of %d", path, done, max_iter)
    else:
        logger.info("resuming from %s at iteration %d of %d", path, done, max_iter)
    for line in changes(state.get("config", ""), cfg):
        logger.warning("changed since that checkpoint: %s", line)
    if cfg.SOLVER.EMA_DECAY and "ema_updates" not in state:
        logger.warning("%s has no averaged weights: the average starts here", path)


@naming_dead_workers()
def _run(cfg: CfgNode, state: TrainingState, loader: BatchLoader, schedule: Schedule, start: int) -> None:
    model, precision = state.model, state.precision
    if cfg.SOLVER.COMPILE:
        model.backbone.compile()  # not the heads: their shapes depend on the image, so they would be compiled again
    if distributed.world_size() > 1:
        device_ids = [precision.device.index] if precision.device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=device_ids)
    clipping = Clipping(cfg.SOLVER.CLIP_GRAD_NORM, cfg.SOLVER.CLIP_GRAD_VALUE)
    advice = "raise SOLVER.ACCUMULATE, turn on SOLVER.AMP, or lower INPUT.MIN_SIZE_TRAIN"
    try:
        with explaining_out_of_memory(advice), explaining_single_values():
            accumulate = cfg.SOLVER.ACCUMULATE
            loop.run(model, loader, state.optimizer, schedule, precision, state.hooks, start, clipping, accumulate)
    except NonFinite as error:
        path = Path(cfg.OUTPUT_DIR) / f"nonfinite_batch_{distributed.rank()}.pth"
        raise InputError(f"{error}; {save_batches(path, error.batches)}") from error


@contextmanager
def explaining_single_values() -> Iterator[None]:
    """Turn torch's error for a batch norm that gets one value per channel (no variance) into an InputError."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            "a batch norm got a single value per channel: one image a process whose coarsest map is one cell; raise "
            "SOLVER.IMS_PER_BATCH or INPUT.MIN_SIZE_TRAIN, or use another norm (MODEL.RESNETS.NORM: FrozenBN or GN)"
        ) from error


def build_writers(cfg: CfgNode, run: Run) -> list[Writer]:
    """The writers of `SOLVER.WRITERS`, in addition to the console and metrics.jsonl."""
    return [lookup(WRITERS, name, "SOLVER.WRITERS")(run) for name in cfg.SOLVER.WRITERS]


def build_precision(cfg: CfgNode, device: torch.device) -> Precision:
    """The type of `SOLVER.AMP`, or float32 on a CPU that would have to emulate it."""
    dtype = getattr(torch, cfg.SOLVER.AMP.DTYPE) if cfg.SOLVER.AMP.ENABLED else None
    if dtype and not is_native(device, dtype):
        reason = "this CPU has no %s arithmetic, and emulating it takes far longer than float32"
        get_logger(__name__).warning(f"SOLVER.AMP is off: {reason}", cfg.SOLVER.AMP.DTYPE)
        dtype = None
    return Precision(device, dtype)
