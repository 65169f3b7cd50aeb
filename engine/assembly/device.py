"""cfg -> the device of the model."""

from __future__ import annotations

import torch
from yacs.config import CfgNode

from engine import distributed
from engine.errors import InputError
from engine.log import get_logger


def build_device(cfg: CfgNode) -> torch.device:
    """`MODEL.DEVICE`, or the CPU if there is no GPU, see `warn_without_gpu`.

    With several processes, each uses the GPU of its local rank, whatever `cuda:N` says.

    Raises:
        InputError: this machine has no GPU with that number.
    """
    device = torch.device(cfg.MODEL.DEVICE)
    if device.type == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if distributed.is_launched():
        return torch.device("cuda", distributed.local_rank())
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise InputError(
            f"MODEL.DEVICE is {device}, but this machine has {count} GPU(s): write cuda:{count - 1} or less"
        )
    return device


def warn_without_gpu(cfg: CfgNode) -> None:
    """Log which settings do not apply because the model is on a CPU; called once per run."""
    if build_device(cfg).type != "cpu":
        return
    logger = get_logger(__name__)
    if cfg.MODEL.DEVICE != "cpu":
        logger.warning("MODEL.DEVICE is %s but no GPU is usable here: using the CPU", cfg.MODEL.DEVICE)
    if cfg.MODEL.USE_SYNCBN and distributed.world_size() > 1:
        logger.warning("MODEL.USE_SYNCBN is off: torch has it for GPUs only, so each process normalises alone")
