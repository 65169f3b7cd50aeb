"""Collective operations that also work without a process group (one process)."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from engine.errors import InputError


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    return rank() == 0


def local_rank() -> int:
    """Index of this process on its machine, as both launchers announce it."""
    return int(os.environ.get("LOCAL_RANK", 0))


def init_process_group(device: torch.device) -> None:
    """Join the group announced by `torchrun` or `torch.distributed.launch`; does nothing for a lone process.

    Raises:
        InputError: there are fewer GPUs than processes on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or is_distributed():
        return
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if local_rank() >= count:
            raise InputError(
                f"process {local_rank()} of this machine has no GPU, there are {count}: start at most {count} "
                "processes on it (--nproc-per-node)"
            )
        torch.cuda.set_device(local_rank())
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))


def destroy_process_group() -> None:
    if is_distributed():
        dist.destroy_process_group()


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean of `tensor` over all processes; a new tensor without gradient history."""
    total = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
        total /= world_size()
    return total


def gather_objects(obj: Any) -> list[Any] | None:
    """The objects of all processes in rank order on the main process, None elsewhere."""
    if world_size() == 1:
        return [obj]
    gathered: list[Any] | None = [None] * world_size() if is_main() else None
    dist.gather_object(obj, gathered)
    return gathered


def broadcast_object(obj: Any) -> Any:
    """The main process's object, on every process."""
    if world_size() == 1:
        return obj
    box = [obj]
    dist.broadcast_object_list(box)
    return box[0]
