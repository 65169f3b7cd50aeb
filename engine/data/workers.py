"""The processes that read images: how they start, how they end, and the error when one of them dies."""

from __future__ import annotations

import atexit
import contextlib
import mmap
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any

import cv2
import numpy as np
import torch

from engine.data.parcel import Channel
from engine.errors import SIGNALS, InputError

Pipe = tuple[Connection, Connection]
CAN_FORK = sys.platform == "linux"


_of_this_process: weakref.WeakSet[Progress] = weakref.WeakSet()


class Progress:
    """What each worker is doing, in memory that the workers share with the process that forks them."""

    def __init__(self, num_workers: int) -> None:
        # Rows are workers, columns: process id, reads begun and ended, index of the image being read or -1.
        self._rows = np.frombuffer(mmap.mmap(-1, num_workers * 3 * 8), np.int64).reshape(num_workers, 3)
        self._rows[:, 2] = -1
        self._num_reads, self._seen_at = 0, time.monotonic()
        self._owner = os.getpid()
        self.ending, self._end = multiprocessing.Pipe(duplex=False)  # readable as soon as the workers are to end
        _of_this_process.add(self)

    def join(self, worker_id: int) -> None:
        """Called in a worker: what `reading` notes is of this worker from now on."""
        global _own_row
        _own_row = self._rows[worker_id]
        _own_row[0] = os.getpid()

    def seconds_without(self, since: float) -> float:
        """Seconds since the last call that saw a worker read, or since the time `since` if that was later."""
        num_reads = int(self._rows[:, 1].sum())
        if num_reads != self._num_reads:
            self._num_reads, self._seen_at = num_reads, time.monotonic()
        return time.monotonic() - max(self._seen_at, since)

    def reading(self) -> list[int]:
        """Indices of the images that workers are reading."""
        return [index for index in self._rows[:, 2].tolist() if index >= 0]

    def end_workers(self) -> None:
        """Have the workers end, whatever they are doing. Torch would wait 10 seconds for each one that hangs."""
        if os.getpid() == self._owner:  # not in a worker, which has a copy
            self._end.send_bytes(b"end")

    def kill_workers(self, after: float = 0.0) -> None:
        """End workers that have not ended `after` so many seconds: they may hang, and they ignore other signals."""
        pids, deadline = set(self._rows[:, 0].tolist()), time.monotonic() + after
        while left := [child for child in multiprocessing.active_children() if child.pid in pids]:
            if time.monotonic() >= deadline:
                for child in left:
                    with contextlib.suppress(RuntimeError):  # torch raises it in the signal handler for a dead worker
                        child.kill()
                        child.join(1.0)
                return
            time.sleep(0.02)


_own_row: np.ndarray | None = None


@contextmanager
def reading(index: int) -> Iterator[None]:
    """Within the block, this process is reading the image `index`; noted if it is a worker."""
    if _own_row is None:
        yield
        return
    _own_row[1:] = _own_row[1] + 1, index
    try:
        yield
    finally:
        _own_row[1:] = _own_row[1] + 1, -1


@contextmanager
def workers_starting(num_workers: int) -> Iterator[None]:
    """Workers are started within the block; signals reach them only when they ignore them.

    Raises:
        OSError: the system has no room for the semaphores of their queues; before the block.
    """
    # More than torch needs. If it ran out of them on the way, it would leave workers behind.
    semaphores = [multiprocessing.Lock() for _ in range(10 + 4 * num_workers)]
    del semaphores
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def worker_arguments(
    num_workers: int, progress: Progress | None = None, channels: Sequence[Channel] = ()
) -> dict[str, Any]:
    """Arguments of a torch DataLoader that reads with `num_workers` processes, at least one.

    They note `progress` and send images through `channels`, one for each, where there are any.

    On Linux they are forks of this process and share the memory of its data set. From 3.14 on, Python by default forks
    them from a server process instead: each would get a copy, and a signal to the whole job would end the server.
    """
    return {
        "num_workers": num_workers,
        "worker_init_fn": partial(_start_worker, _lifeline(os.getpid()), progress, channels),
        "multiprocessing_context": "fork" if CAN_FORK else None,
        "persistent_workers": True,
    }


@cache
def _lifeline(pid: int) -> Pipe:
    """A pipe between process `pid` (the caller) and all its workers, through which they learn of its end.

    When the process exits it writes to the pipe; after a SIGKILL no writing end is left open. Either makes the workers'
    end readable. A signal would not do, since workers ignore signals.
    """
    return multiprocessing.Pipe(duplex=False)


@cache
def end_workers_at_exit(pid: int) -> None:
    """End the workers of process `pid` (the caller) at its exit; call it when torch has started some.

    Then it runs before torch and Python wait for them.
    """

    def end_workers() -> None:
        if os.getpid() != pid:
            return  # a forked process inherits this, but must not act on it
        _lifeline(pid)[1].send_bytes(b"end")
        for progress in list(_of_this_process):
            progress.kill_workers(after=2.0)

    atexit.register(end_workers)


def _start_worker(lifeline: Pipe, progress: Progress | None, channels: Sequence[Channel], worker_id: int) -> None:
    """Prepare a worker: no signals, no threads that compute, and an end together with the main process."""
    if progress:
        progress.join(worker_id)
    if channels:
        channels[worker_id].open_in_worker()
    # A signal to the whole job is answered by the main process, which still needs its workers to finish an iteration.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    reading_end, writing_end = lifeline
    writing_end.close()  # otherwise this copy would keep the pipe open after the main process was killed
    ends = [reading_end, progress.ending] if progress else [reading_end]
    threading.Thread(target=_end_with, args=(ends,), daemon=True).start()
    # The workers already run in parallel; threads inside them would compete for the same CPUs.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_with(ends: list[Connection]) -> None:
    """End this process as soon as the main process, or its use for it, has ended."""
    multiprocessing.connection.wait(ends)
    # At once, without cleaning up: that could wait for ever for somebody to read what this worker is sending.
    os._exit(0)


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """Turn torch's error about a dead loader worker into one line.

    Torch raises it from a signal handler, in the middle of whatever the main process is doing. So this belongs around
    all work on the batches of a loader, not only around fetching them.

    Raises:
        InputError: a worker was killed or exited; the message says which.
    """
    try:
        yield
    except RuntimeError as error:  # torch has no class of its own for it
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise InputError(
            f"{str(error).splitlines()[0].rstrip('. ')}: it was reading images; if it was killed, memory probably "
            "ran out: lower DATALOADER.NUM_WORKERS"
        ) from None
