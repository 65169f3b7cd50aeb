"""Resuming from a checkpoint as if the run had never stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine import distributed
from engine.checkpoint import Checkpointer, io
from engine.checkpoint.norm_eps import stored_eps
from engine.errors import InputError, listed
from engine.log import get_logger
from engine.spelling import normal_name
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


@dataclass(frozen=True)
class TrainingState:
    """What a checkpoint holds of a training. Hooks are added later, because some of them write checkpoints."""

    model: nn.Module  # the detector, without the wrapper for several processes
    optimizer: torch.optim.Optimizer
    optimizer_name: str  # `SOLVER.OPTIMIZER`
    precision: Precision  # has the loss scale
    ema: EMAHook | None = None  # the averaged weights, if there are any
    hooks: list[Hook] = field(default_factory=list)  # in the order of their calls

    def checkpoint(self, iteration: int, buffers: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """The content of a checkpoint after `iteration` iterations; "model" has the weights to use (the average).

        `buffers` replace those of the model by name, if an unfinished step may have changed them.
        """
        model, ema = self.model, self.ema
        weights = {**model.state_dict(), **(buffers or {})}
        averaged = {"training_model": weights, "ema_updates": ema.num_updates} if ema else {}
        hooks = {name: hook.state_dict() for name, hook in _by_name(self.hooks).items()}
        return {
            "format": io.FORMAT,
            "model": ema.model.state_dict() if ema else weights,
            **averaged,
            "norm_eps": stored_eps(model),
            "class_names": model.class_names,
            "thresholds": None,
            "iteration": iteration,
            "optimizer": self.optimizer.state_dict(),
            "parameter_names": parameter_names(model, self.optimizer),
            "optimizer_name": self.optimizer_name,
            "scaler": self.precision.state_dict(),
            "hooks": {name: state for name, state in hooks.items() if state},
        }

    def restore(self, path: Path, saved: dict[str, Any]) -> None:
        """The inverse of `checkpoint`; learning rates and weight decay stay those of the configuration.

        Raises:
            InputError: the checkpoint `saved`, read from `path`, belongs to another model, optimizer or list of
                classes; names the first difference.
        """
        name = saved.get("optimizer_name", self.optimizer_name)
        if name != self.optimizer_name:
            raise _unfit(path, f"it was trained with SOLVER.OPTIMIZER {name}, not {self.optimizer_name}")
        classes, saved_classes = getattr(self.model, "class_names", None), saved.get("class_names")
        if classes and saved_classes and [*map(normal_name, classes)] != [*map(normal_name, saved_classes)]:
            raise _unfit(path, f"its classes are {listed(saved_classes)}, the training set's {listed(classes)}")
        # `load_state_dict` also restores learning rates and decays, which are to come from the configuration.
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        try:
            self.model.load_state_dict(saved.get("training_model", saved["model"]))
            names = parameter_names(self.model, self.optimizer)
            self.optimizer.load_state_dict(_in_order_of(self.optimizer, names, saved))
            self.precision.load_state_dict(saved.get("scaler", {}))
            if self.ema:
                self.ema.restore(saved["model"], saved.get("ema_updates", 0))
            for name, hook in _by_name(self.hooks).items():
                if name in saved.get("hooks", {}):
                    hook.load_state_dict(saved["hooks"][name])
        except Exception as error:  # torch and hooks look into the state without checking it
            # torch writes a heading first, then a line for each difference.
            lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
            raise _unfit(path, lines[min(1, len(lines) - 1)]) from error
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
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


def _by_name(hooks: Sequence[Hook]) -> dict[str, Hook]:
    """Hooks by the names of their classes; further hooks of the same class are numbered."""
    named: dict[str, Hook] = {}
    for hook in hooks:
        name = type(hook).__name__
        number = 1 + sum(type(each).__name__ == name for each in named.values())
        named[name if number == 1 else f"{name} {number}"] = hook
    return named


def _unfit(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} does not fit this configuration: {reason.rstrip('.')}; to start again from its weights, leave out "
        f"--resume and set MODEL.WEIGHT {path}"
    )
