"""cfg -> the state of the process: user modules, process group, log, seeds, output folder."""

from __future__ import annotations

import importlib
import os
import random
from pathlib import Path

import numpy as np
import torch
import yaml

from engine import distributed
from engine.assembly.device import build_device, warn_without_gpu
from engine.config import CfgNode
from engine.environment import environment_report
from engine.errors import InputError
from engine.files import write_text
from engine.log import CONFIG_FILE, get_logger, setup_logging
from engine.registry import import_modules


def prepare(cfg: CfgNode, resume: bool = False) -> bool:
    """Prepare the process for a run in `OUTPUT_DIR`.

    Imports the modules of `IMPORTS`, joins the process group of the launcher, starts the log, chooses `SEED` (if it is
    -1: the one of the run to resume, or a random one) and seeds all random number generators.

    Returns:
        Whether to resume a run: if `resume`, or if torchrun has restarted the processes.

    Raises:
        InputError: a module of `IMPORTS` cannot be imported, a name is not registered, there is no such GPU, or
            `OUTPUT_DIR` cannot be used.
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
    resume = resume or distributed.has_begun(str(output_dir.resolve()))
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        setup_logging(output_dir, distributed.rank())
    except OSError as error:
        raise InputError(f"OUTPUT_DIR {output_dir} cannot be written to ({error.strerror}); choose another") from error
    if distributed.is_main():
        get_logger(__name__).info(environment_report())
        warn_without_gpu(cfg)
    if cfg.SEED < 0:
        cfg.defrost()
        cfg.SEED = distributed.broadcast_object(_choose_seed(output_dir, resume))
        cfg.freeze()
        get_logger(__name__).info("SEED is %d", cfg.SEED)
    seed_everything(cfg)
    return resume


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
        torch.backends.cudnn.benchmark = False
    random.seed(cfg.SEED)
    np.random.seed(cfg.SEED)
    torch.manual_seed(cfg.SEED)
