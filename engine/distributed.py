"""Collective operations that also work without a process group (one process)."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from engine.device import explaining_out_of_memory
from engine.errors import InputError

Answer = TypeVar("Answer")

MEETING_TIMEOUT = timedelta(minutes=10)
"""How long the processes may take to find each other."""
TIMEOUT = timedelta(minutes=30)
"""How long one process waits for the others, for example while one saves a checkpoint or scores a test."""


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    return rank() == 0


def is_launched() -> bool:
    """Whether a launcher has started several processes; they need not be connected yet."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def local_rank() -> int:
    """Index of this process on its machine, set by both launchers."""
    return int(os.environ.get("LOCAL_RANK", 0))


_job_store: dist.Store | None = None
"""torchrun's key-value store, which outlives the processes that it restarts."""
_begun_here: set[str] = set()
"""The folders in which this very process has started a run."""


def mark_begun(folder: str) -> None:
    """Note that this job has started a run in `folder`, see `has_begun`."""
    _begun_here.add(folder)
    if _job_store is not None and is_main():
        _job_store.set(f"begun/{folder}", "")


def has_begun(folder: str) -> bool:
    """Whether torchrun has restarted these processes after `mark_begun`; the same on every process.

    torchrun's restart count is less reliable: each machine counts for itself, and the first start may have ended before
    `mark_begun`. So the count only decides where torchrun does not share its store.
    """
    if folder in _begun_here:
        return False
    if _job_store is None:
        return largest(int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))) > 0
    return broadcast_object(is_main() and _job_store.check([f"begun/{folder}"]))


def init_process_group(device: torch.device) -> None:
    """Join the process group of `torchrun` or `torch.distributed.launch`; a single process joins none.

    Raises:
        InputError: this machine has fewer GPUs than processes, or the processes cannot connect to each other.
    """
    global _job_store
    is_lent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun, also to a single process
    if is_distributed() or not (is_launched() or is_lent):
        return
    if is_launched() and device.type == "cuda":
        count = torch.cuda.device_count()
        if local_rank() >= count:
            raise InputError(
                f"no GPU for process {local_rank()} of this machine, which has {count} GPU(s): start at most {count} "
                "processes on it (--nproc-per-node)"
            )
        torch.cuda.set_device(local_rank())
    try:
        store, own_rank, size = next(dist.rendezvous("env://", timeout=MEETING_TIMEOUT))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the processes cannot connect to each other: {str(error).splitlines()[0]}") from error
    _job_store = store if is_lent else None
    if size == 1:
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"  # gloo carries objects and flags
    store = store_of_this_start(store, own_rank, size)
    dist.init_process_group(backend, store=store, rank=own_rank, world_size=size, timeout=TIMEOUT)


def store_of_this_start(
    store: dist.Store, own_rank: int, size: int, timeout: timedelta = MEETING_TIMEOUT
) -> dist.Store:
    """A part of `store` used only by the processes that were started together with this one.

    torchrun keeps one store across restarts, in which gloo and NCCL would find the addresses of dead processes (pytorch
    issues 135712 and 167288). So the main process chooses a new name and sends it to each process that asks. It also
    answers questions left by an earlier start, and nobody reads those answers.

    Raises:
        InputError: timed out; names the processes that did not answer.
    """
    own = uuid.uuid4().hex
    if own_rank > 0:
        store.set(f"question/{own_rank}", own)
        try:
            store.wait([f"answer/{own}"], timeout)
        except RuntimeError as error:
            raise InputError(f"process {own_rank} of {size} timed out waiting for the main process") from error
        name = store.get(f"answer/{own}").decode()
        store.set(f"{name}/{own_rank}", "understood")
        return dist.PrefixStore(name, store)
    waiting, deadline = set(range(1, size)), time.monotonic() + timeout.total_seconds()
    while waiting:
        if time.monotonic() > deadline:
            raise InputError(f"timed out waiting for ranks {', '.join(map(str, sorted(waiting)))} of {size} processes")
        for other in waiting:
            if store.check([f"question/{other}"]):
                store.set(f"answer/{store.get(f'question/{other}').decode()}", own)
        waiting = {other for other in waiting if not store.check([f"{own}/{other}"])}
        time.sleep(0.01)
    return dist.PrefixStore(own, store)


@contextmanager
def process_group() -> Iterator[None]:
    """Leaves the process group at the end, if it was joined, and reports the loss of another process in one line.

    Raises:
        InputError: another process ended while exchanging data with this one, or the GPU ran out of memory.
    """
    try:
        with explaining_out_of_memory("lower TEST.IMS_PER_BATCH, SOLVER.IMS_PER_BATCH or the sizes of INPUT"):
            yield
    except RuntimeError as error:
        if not (is_distributed() and _is_lost_peer(error)):
            raise
        raise InputError(f"process {rank()} of {world_size()}: another process ended; its message says why") from error
    finally:
        if is_distributed():
            # gloo's threads need Python's lock to free the tensors of the last exchange, while torch holds that lock
            # and waits for the threads to end. Without the pause this deadlocked with torch 2.6.
            time.sleep(0.1)
            dist.destroy_process_group()


def _is_lost_peer(error: RuntimeError) -> bool:
    """gloo only has these words for it; in some places torch raises a class of its own (DistNetworkError)."""
    words = ("connection closed by peer", "connection reset by peer", "broken pipe", "gloo")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


class Notes:
    """Notes that the processes of a run leave for each other, also while they wait in a collective operation.

    They are kept in a store of torch. Each call ends within seconds; a store that has not answered in time counts as
    lost, and nothing is read from it any more.
    """

    def __init__(self, store: dist.Store) -> None:
        self._store = store
        self._is_lost = False

    def leave(self, key: str, text: str) -> bool:
        """Returns whether the note was left."""
        return self._answer(lambda: self._store.set(key, text) or True, False)

    def read(self, key: str) -> str:
        """The text of a note; "" if nobody has left one."""
        return self._answer(lambda: self._store.get(key).decode() if self._store.check([key]) else "", "")

    def holds(self, key: str) -> bool:
        """Whether somebody has left a note."""
        return self._answer(lambda: self._store.check([key]), False)

    def wait(self, key: str, seconds: float) -> bool:
        """Returns whether a note is there within so many seconds."""
        deadline = time.monotonic() + seconds
        while not (found := self.holds(key)) and not self._is_lost and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def claim(self, key: str) -> bool:
        """Whether this process is the first to claim `key`. If the store is lost, only the main process is."""
        own = str(rank())
        return self._answer(lambda: self._store.compare_set(key, "", own).decode() == own, is_main())

    def _answer(self, question: Callable[[], Answer], otherwise: Answer) -> Answer:
        answers: list[Answer] = []

        def ask() -> None:
            with suppress(RuntimeError):
                answers.append(question())

        if not self._is_lost:
            thread = threading.Thread(target=ask, daemon=True)
            thread.start()
            thread.join(2.0)
            self._is_lost = not answers
        return answers[0] if answers else otherwise


def shared_notes() -> Notes | None:
    """New notes, if there are several processes; all of them call it together."""
    if world_size() == 1:
        return None
    name = broadcast_object(uuid.uuid4().hex)
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not (address and port):
        return None  # the processes met in another way than with a launcher
    try:
        # A connection of its own: a collective operation may occupy the other one.
        store = dist.TCPStore(address, int(port), is_master=False, wait_for_workers=False, timeout=timedelta(seconds=9))
    except RuntimeError:
        return None
    return Notes(dist.PrefixStore(name, store))


def barrier() -> None:
    if world_size() > 1:
        dist.barrier()


_is_alone = False


@contextmanager
def alone() -> Iterator[None]:
    """Within the block `all_reduce_mean` returns the value of this process, since the others do other work."""
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


def normalizers(sums: Tensor, least: float = 1.0) -> Tensor:
    """What the losses of this process are divided by: the mean of `sums` over all processes.

    The total over the processes counts as `least` if it is smaller, so that any split of a batch over processes divides
    by the same numbers.
    """
    num_processes = 1 if _is_alone else world_size()
    return all_reduce_mean(sums).clamp(min=least / num_processes)


def largest(number: int) -> int:
    """The largest `number` among all processes, returned on every process."""
    if world_size() == 1:
        return number
    tensor = torch.tensor(number)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Overwrite `tensors` with the values of the main process."""
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
    """The object of the main process, returned on every process."""
    if world_size() == 1:
        return obj
    box = [obj]
    dist.broadcast_object_list(box)
    return box[0]
