"""cfg -> the state of the process: user modules, process group, log, seeds, output folder."""

from __future__ import annotations

import importlib
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
import torch
import yaml

from engine import distributed, folder_lock
from engine.assembly.device import build_device, warn_without_gpu
from engine.config import CfgNode
from engine.environment import environment_report
from engine.errors import InputError
from engine.files import write_text
from engine.log import CONFIG_FILE, get_logger, setup_logging, warn_once
from engine.registry import import_modules

Run = TypeVar("Run", bound=Callable[..., Any])


def prepare(cfg: CfgNode, resume: bool = False) -> bool:
    """Prepare the process for a run in `OUTPUT_DIR`.

    Imports the modules of `IMPORTS`, joins the process group of the launcher, claims the folder for this job, starts
    the log, chooses `SEED` (if it is -1: the one of the run to resume, or a random one) and seeds all random number
    generators. The folder is this job's until `folder_lock.release` or the end of the process.

    Returns:
        Whether to resume a run: if `resume`, or if torchrun has restarted the processes.

    Raises:
        InputError: a module of `IMPORTS` cannot be imported, a name is not registered, there is no such GPU, or
            `OUTPUT_DIR` cannot be used or is in use by another run.
    """
    # Numbers below 1e-38 (moments of AdamW, gradients of a new head) take a CPU ten times as long as zeros. New threads
    # inherit the setting, so it comes before the first parallel operation.
    torch.set_flush_denormal(True)
    import_modules(cfg.IMPORTS)
    cfg.check_registered(registered_names)  # report a misspelt name now, not hours into a training
    device = build_device(cfg)
    distributed.init_process_group(device)
    if device.index is not None and distributed.world_size() == 1:
        torch.cuda.set_device(device)  # pinned memory and memory statistics belong to the current device
    output_dir = Path(cfg.OUTPUT_DIR)
    if "://" in cfg.OUTPUT_DIR:
        raise InputError(f"OUTPUT_DIR {cfg.OUTPUT_DIR} is a URL; name a folder, and copy it there afterwards")
    resume = resume or distributed.has_begun(os.path.realpath(output_dir))
    setup_logging(rank=distributed.rank())  # of the console: a run that is refused must not add to the log of another
    taken_over = claim_output_dir(cfg)
    try:
        setup_logging(output_dir, distributed.rank())
    except OSError as error:
        raise _not_writable(output_dir, error) from error
    if distributed.is_main():
        get_logger(__name__).info(environment_report())
        if taken_over:
            get_logger(__name__).warning(taken_over)
        warn_without_gpu(cfg)
    if cfg.SEED < 0:
        cfg.defrost()
        cfg.SEED = distributed.broadcast_object(_choose_seed(output_dir, resume))
        cfg.freeze()
        get_logger(__name__).info("SEED is %d", cfg.SEED)
    seed_everything(cfg)
    return resume


def claim_output_dir(cfg: CfgNode) -> str | None:
    """Make this job the only one that writes into `OUTPUT_DIR`; the main process holds the lock for all.

    Returns:
        See `folder_lock.claim`; the same on every process.

    Raises:
        InputError: another run writes into it, or it cannot be written to; nothing in it was changed.
    """
    output_dir = Path(cfg.OUTPUT_DIR)
    taken_over, fault = None, ""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if distributed.is_main():
            taken_over = folder_lock.claim(output_dir)
    except InputError as error:
        fault = str(error)
    except OSError as error:
        fault = str(_not_writable(output_dir, error))
    taken_over, fault_of_main = distributed.broadcast_object((taken_over, fault))
    if fault or fault_of_main:
        raise InputError(fault or fault_of_main)
    return taken_over


def releasing_output_dir(run: Run) -> Run:
    """Decorates a run so that others may write into `OUTPUT_DIR` after it, unless a test follows (`will_test`)."""

    @wraps(run)
    def wrapped(cfg: CfgNode, resume: bool = False, will_test: bool = False) -> Any:
        try:
            return run(cfg, resume, will_test)
        finally:
            if not will_test:
                folder_lock.release(Path(cfg.OUTPUT_DIR))

    return wrapped


@contextmanager
def output_dir_claimed(cfg: CfgNode) -> Iterator[None]:
    """`OUTPUT_DIR` is this job's within the block, and after it if it was before."""
    is_new = claim_output_dir(cfg) is not None
    try:
        yield
    finally:
        if is_new:
            folder_lock.release(Path(cfg.OUTPUT_DIR))


def _not_writable(output_dir: Path, error: OSError) -> InputError:
    return InputError(f"OUTPUT_DIR {output_dir} cannot be written to ({error.strerror}); choose another")


def registered_names(registry: str) -> list[str]:
    """The names that the registry "module.NAME" holds.

    Example:
        >>> "GN" in registered_names("engine.layers.norm.NORMS")
        True
    """
    module, _, name = registry.rpartition(".")
    return [each for each, _ in getattr(importlib.import_module(module), name)]


def write_config(cfg: CfgNode) -> None:
    """Write the resolved configuration of a training run to `OUTPUT_DIR/config.yaml`."""
    if distributed.is_main():
        write_text(Path(cfg.OUTPUT_DIR) / CONFIG_FILE, cfg.dump())


def _choose_seed(output_dir: Path, resume: bool) -> int:
    previous = output_dir / CONFIG_FILE
    if resume and previous.exists():
        try:
            settings = yaml.safe_load(previous.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            settings = None
            get_logger(__name__).warning("%s cannot be read: the run continues with another SEED", previous)
        if isinstance(settings, dict) and isinstance(settings.get("SEED"), int) and settings["SEED"] >= 0:
            return settings["SEED"]
    return random.SystemRandom().randrange(2**31)


def seed_everything(cfg: CfgNode) -> None:
    """Seed Python, NumPy and torch with `SEED`, and use deterministic kernels if `DETERMINISTIC`."""
    if cfg.DETERMINISTIC:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # otherwise cuBLAS may differ between two runs
        torch.use_deterministic_algorithms(True, warn_only=True)
        _log_operators_without_deterministic_form()
        torch.backends.cudnn.benchmark = False
    random.seed(cfg.SEED)
    np.random.seed(cfg.SEED)
    torch.manual_seed(cfg.SEED)


def _log_operators_without_deterministic_form() -> None:
    """From here on, torch's warning of such an operator is one line of the log instead of two on stderr."""
    show = warnings.showwarning
    if show.__module__ == __name__:
        return  # a run after another one in the same process

    def show_or_log(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        operator, is_found, _ = str(message).partition(" does not have a deterministic implementation")
        if is_found:
            warn_once(f"DETERMINISTIC: torch has no deterministic {operator} here: two runs may differ slightly")
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = show_or_log
