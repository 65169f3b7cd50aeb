"""Going on from a checkpoint as if the run had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.checkpoint import Checkpointer
from engine.errors import InputError
from engine.log import get_logger
from engine.training.precision import Precision


def resume_point(checkpointer: Checkpointer) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from; None, said aloud, where there is none.

    Raises:
        InputError: the last checkpoint is not one of a training.
    """
    last = checkpointer.load_last()
    if last is None:
        get_logger(__name__).warning("there is no checkpoint in %s to resume from", checkpointer.output_dir)
        return None
    path, state = last
    if not {"model", "iteration", "optimizer"} <= state.keys():
        raise _unfit(path, "it holds weights but not the state of a training")
    return last


def restore(
    last: tuple[Path, dict[str, Any]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    optimizer_name: str,
) -> None:
    """Put model, optimizer and loss scale into the state of a checkpoint; rates and decays stay the configuration's.

    Raises:
        InputError: the checkpoint belongs to another model, optimizer or list of classes; says the first difference.
    """
    path, state = last
    saved_name = state.get("optimizer_name", optimizer_name)
    if saved_name != optimizer_name:
        raise _unfit(path, f"it was trained with SOLVER.OPTIMIZER {saved_name}, not {optimizer_name}")
    classes, saved_classes = getattr(model, "class_names", None), state.get("class_names")
    if classes and saved_classes and list(classes) != list(saved_classes):
        raise _unfit(path, f"its classes are {', '.join(saved_classes)}, the training set's {', '.join(classes)}")
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        precision.load_state_dict(state.get("scaler", {}))
    except (KeyError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise _unfit(path, lines[min(1, len(lines) - 1)]) from error
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        group.update(setting)


def _unfit(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} does not fit this configuration: {reason.rstrip('.')}; to start anew from its weights, leave out "
        f"--resume and set MODEL.WEIGHT {path}"
    )
