"""Resuming from a checkpoint as if the run had never stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine import distributed
from engine.checkpoint import Checkpointer, io
from engine.errors import InputError
from engine.log import get_logger
from engine.training.ema import EMAHook
from engine.training.loop import Hook
from engine.training.precision import Precision


def resume_point(checkpointer: Checkpointer) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to resume from, chosen by the main process; None, which is logged, if there is none.

    Raises:
        InputError: the last checkpoint has no training state, or only the main process can read it.
    """
    last = checkpointer.load_last() if distributed.is_main() else None
    path = distributed.broadcast_object(last and last[0])
    if path is None:
        get_logger(__name__).info("there is no checkpoint in %s to resume from", checkpointer.output_dir)
        return None
    if last is None:
        try:
            last = path, io.load(path)
        except InputError as error:
            raise InputError(f"process {distributed.rank()}: {error}; all machines must share OUTPUT_DIR") from error
    if not {"model", "iteration", "optimizer"} <= last[1].keys():
        raise _unfit(path, "it has weights but no training state")
    return last


def restore(
    last: tuple[Path, dict[str, Any]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    optimizer_name: str,
    ema: EMAHook | None = None,
) -> None:
    """Restore model, optimizer, loss scale and averaged weights from a checkpoint.

    Learning rates and weight decay are taken from the configuration.

    Raises:
        InputError: the checkpoint belongs to another model, optimizer or list of classes; names the first difference.
    """
    path, state = last
    saved_name = state.get("optimizer_name", optimizer_name)
    if saved_name != optimizer_name:
        raise _unfit(path, f"it was trained with SOLVER.OPTIMIZER {saved_name}, not {optimizer_name}")
    classes, saved_classes = getattr(model, "class_names", None), state.get("class_names")
    if classes and saved_classes and list(classes) != list(saved_classes):
        raise _unfit(path, f"its classes are {', '.join(saved_classes)}, the training set's {', '.join(classes)}")
    # `load_state_dict` also restores learning rates and decays, which are to come from the configuration.
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    weights = state.get("training_model", state["model"])
    try:
        model.load_state_dict(weights)
        optimizer.load_state_dict(_in_order_of(optimizer, parameter_names(model, optimizer), state))
        precision.load_state_dict(state.get("scaler", {}))
        if ema:
            ema.restore(state["model"], state.get("ema_updates", 0))
    except (KeyError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise _unfit(path, lines[min(1, len(lines) - 1)]) from error
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        group.update(setting)


def parameter_names(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the parameters of the optimizer, in the order of the numbers in its state dict."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    # A parameter that a hook has added has no name in the model.
    return [names.get(id(each), f"number {number}") for number, each in enumerate(parameters)]


def _in_order_of(optimizer: torch.optim.Optimizer, names: list[str], state: dict[str, Any]) -> dict[str, Any]:
    """The optimizer state of a checkpoint, renumbered for `optimizer`, whose groups may differ.

    Raises:
        ValueError: it belongs to other parameters.
    """
    saved, saved_names = state["optimizer"], state.get("parameter_names")
    if saved_names is None:  # written by an early version
        return saved
    if set(saved_names) != set(names):
        raise ValueError(f"it trained other parameters: {', '.join(sorted(set(saved_names) ^ set(names))[:3])}, ...")
    numbers = {name: number for number, name in enumerate(saved_names)}
    moments = {new: saved["state"][numbers[name]] for new, name in enumerate(names) if numbers[name] in saved["state"]}
    return {"state": moments, "param_groups": optimizer.state_dict()["param_groups"]}


def restore_hooks(hooks: Sequence[Hook], states: dict[str, dict[str, Any]]) -> None:
    """Pass each hook its state from `hook_states`, found by the name of its class."""
    for name, hook in _by_name(hooks).items():
        if name in states:
            hook.load_state_dict(states[name])


def hook_states(hooks: Sequence[Hook]) -> dict[str, dict[str, Any]]:
    """The states of the hooks, by the names of their classes."""
    states = {name: hook.state_dict() for name, hook in _by_name(hooks).items()}
    return {name: state for name, state in states.items() if state}


def _by_name(hooks: Sequence[Hook]) -> dict[str, Hook]:
    """Hooks by the names of their classes; further hooks of the same class are numbered."""
    counts: Counter[str] = Counter()
    named = {}
    for hook in hooks:
        name = type(hook).__name__
        counts[name] += 1
        named[name if counts[name] == 1 else f"{name} {counts[name]}"] = hook
    return named


def _unfit(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} does not fit this configuration: {reason.rstrip('.')}; to start again from its weights, leave out "
        f"--resume and set MODEL.WEIGHT {path}"
    )
