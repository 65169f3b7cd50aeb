"""Collective operations that also work without a process group (one process)."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from engine.errors import InputError

MEETING_TIMEOUT = timedelta(minutes=10)
"""For the processes to find each other."""
TIMEOUT = timedelta(minutes=30)
"""For one process to wait for the others: the longest checkpoint or scoring of a test."""


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    return rank() == 0


def is_launched() -> bool:
    """Whether a launcher has announced several processes; they need not have met yet."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def local_rank() -> int:
    """Index of this process on its machine, as both launchers announce it."""
    return int(os.environ.get("LOCAL_RANK", 0))


_job_store: dist.Store | None = None
"""torchrun's keys, which outlive the processes it restarts."""
_begun_here: set[str] = set()
"""The folders in which this process itself began."""


def mark_begun(folder: str) -> None:
    """What is found in `folder` from now on is this job's own, see `has_begun`."""
    _begun_here.add(folder)
    if _job_store is not None and is_main():
        _job_store.set(f"begun/{folder}", "")


def has_begun(folder: str) -> bool:
    """Whether torchrun has restarted these processes after `mark_begun`; the same on every process.

    Its count of restarts says less (each machine counts for itself, and the first start may have ended before it
    began), so it only decides where torchrun does not lend its store.
    """
    if folder in _begun_here:
        return False
    if _job_store is None:
        return largest(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))) > 0
    return broadcast_object(is_main() and _job_store.check([f"begun/{folder}"]))


def init_process_group(device: torch.device) -> None:
    """Join the group announced by `torchrun` or `torch.distributed.launch`; a lone process joins none.

    Raises:
        InputError: there are fewer GPUs than processes on this machine, or the processes do not meet.
    """
    global _job_store
    is_lent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun's store, to a lone process too
    if is_distributed() or not (is_launched() or is_lent):
        return
    if is_launched() and device.type == "cuda":
        count = torch.cuda.device_count()
        if local_rank() >= count:
            raise InputError(
                f"process {local_rank()} of this machine has no GPU, there are {count}: start at most {count} "
                "processes on it (--nproc-per-node)"
            )
        torch.cuda.set_device(local_rank())
    try:
        store, own_rank, size = next(dist.rendezvous("env://", timeout=MEETING_TIMEOUT))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the processes do not meet: {str(error).splitlines()[0]}") from error
    _job_store = store if is_lent else None
    if size == 1:
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"  # objects and flags travel over gloo
    store = store_of_this_start(store, own_rank, size)
    dist.init_process_group(backend, store=store, rank=own_rank, world_size=size, timeout=TIMEOUT)


def store_of_this_start(
    store: dist.Store, own_rank: int, size: int, timeout: timedelta = MEETING_TIMEOUT
) -> dist.Store:
    """A part of `store` that only the processes started together with this one use.

    torchrun keeps one store for all its restarts, in which gloo and NCCL would find the addresses of dead processes
    (pytorch issues 135712 and 167288). So the main process chooses a name nobody had before and tells those who ask. A
    question of an earlier start is answered too, and nobody reads it.

    Raises:
        InputError: a process does not come within `timeout`; says which.
    """
    own = uuid.uuid4().hex
    if own_rank > 0:
        store.set(f"question/{own_rank}", own)
        try:
            store.wait([f"answer/{own}"], timeout)
        except RuntimeError as error:
            raise InputError(f"process {own_rank} of {size}: the main process does not answer") from error
        name = store.get(f"answer/{own}").decode()
        store.set(f"{name}/{own_rank}", "understood")
        return dist.PrefixStore(name, store)
    waiting, deadline = set(range(1, size)), time.monotonic() + timeout.total_seconds()
    while waiting:
        if time.monotonic() > deadline:
            raise InputError(f"of {size} processes, these do not come: {', '.join(map(str, sorted(waiting)))}")
        for other in waiting:
            if store.check([f"question/{other}"]):
                store.set(f"answer/{store.get(f'question/{other}').decode()}", own)
        waiting = {other for other in waiting if not store.check([f"{own}/{other}"])}
        time.sleep(0.01)
    return dist.PrefixStore(own, store)


@contextmanager
def process_group() -> Iterator[None]:
    """Leaves the process group at the end, if one was joined; the loss of another process becomes one line.

    Raises:
        InputError: another process ended in the middle of an exchange with this one.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            "the memory of the GPU ran out: lower TEST.IMS_PER_BATCH, SOLVER.IMS_PER_BATCH or the sizes of INPUT"
        ) from error
    except RuntimeError as error:
        if not (is_distributed() and _is_lost_peer(error)):
            raise
        raise InputError(f"process {rank()} of {world_size()}: another process ended; its message says why") from error
    finally:
        if is_distributed():
            # gloo's threads need Python's lock to drop the tensors of the last exchange, and torch holds it while it
            # waits for them to end: seen to hang with torch 2.6.
            time.sleep(0.1)
            dist.destroy_process_group()


def _is_lost_peer(error: RuntimeError) -> bool:
    """gloo says it in these words only; torch has a class of its own for it (DistNetworkError) in some places."""
    words = ("connection closed by peer", "connection reset by peer", "broken pipe", "gloo")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


_is_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Within the block `all_reduce_mean` gives this process its own figure: the others have no part in its work."""
    global _is_alone
    before, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = before


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Mean of `tensor` over all processes; a new tensor without gradient history."""
    total = tensor.detach().clone()
    if world_size() > 1 and not _is_alone:
        dist.all_reduce(total)
        total /= world_size()
    return total


def largest(number: int) -> int:
    """The largest `number` of all processes, on every process."""
    if world_size() == 1:
        return number
    tensor = torch.tensor(number)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Fill `tensors` with the main process's values, in place."""
    if world_size() > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


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
