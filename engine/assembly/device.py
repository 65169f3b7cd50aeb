"""cfg -> the device of the model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from yacs.config import CfgNode

from engine import distributed
from engine.errors import InputError, shown
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


def named_devices(names: Sequence[str]) -> list[torch.device]:
    """The devices of these names; unlike `MODEL.DEVICE`, one that is not there is never replaced by the CPU.

    Raises:
        InputError: there is no name, or this machine has no such device.
    """
    if isinstance(names, str) or not names:
        raise InputError(f'devices must be a list of names, such as ["cuda:0", "cuda:1"], not {shown(names)}')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", name):
            raise InputError(f"devices: {shown(name)} must be cuda, cuda:N or cpu")
        if name != "cpu" and int(name.partition(":")[2] or 0) >= count:
            raise InputError(f"devices: there is no {name}, this machine has {count} GPU(s); name those that it has")
    return [torch.device(name) for name in names]


def warn_without_gpu(cfg: CfgNode) -> None:
    """Log which settings do not apply because the model is on a CPU; called once per run."""
    if build_device(cfg).type != "cpu":
        return
    logger = get_logger(__name__)
    if cfg.MODEL.DEVICE != "cpu":
        logger.warning("MODEL.DEVICE is %s but no GPU is usable here: using the CPU", cfg.MODEL.DEVICE)
    if cfg.MODEL.USE_SYNCBN and distributed.world_size() > 1:
        logger.warning("MODEL.USE_SYNCBN is off: torch has it for GPUs only, so each process normalises alone")
