"""The processes that read images: how they start, how they end, and the error when one of them dies."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any

import cv2
import torch

from engine.errors import SIGNALS, InputError

Pipe = tuple[Connection, Connection]


def worker_arguments(num_workers: int) -> dict[str, Any]:
    """Arguments of a torch DataLoader that reads with `num_workers` processes, at least one.

    On Linux they are forks of this process and share the memory of its data set. From 3.14 on, Python by default forks
    them from a server process instead: each would get a copy, and a signal to the whole job would end the server.
    """
    return {
        "num_workers": num_workers,
        "worker_init_fn": partial(_start_worker, _lifeline(os.getpid())),
        "multiprocessing_context": "fork" if sys.platform == "linux" else None,
        "persistent_workers": True,
    }


@cache
def _lifeline(pid: int) -> Pipe:
    """A pipe between process `pid` (the caller) and all its workers, through which they learn of its end.

    When the process exits it writes to the pipe; after a SIGKILL no writing end is left open. Either makes the workers'
    end readable. A signal would not do, since workers ignore signals.
    """
    reading_end, writing_end = multiprocessing.Pipe(duplex=False)
    # This runs before Python waits for the workers. Forked processes inherit it, but must not act on it.
    atexit.register(lambda: writing_end.send_bytes(b"end") if os.getpid() == pid else None)
    return reading_end, writing_end


def _start_worker(lifeline: Pipe, worker_id: int) -> None:
    """Prepare a worker: no signals, no threads that compute, and an end together with the main process."""
    # A signal to the whole job is answered by the main process, which still needs its workers to finish an iteration.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    reading_end, writing_end = lifeline
    writing_end.close()  # otherwise this copy would keep the pipe open after the main process was killed
    threading.Thread(target=_end_with, args=(reading_end,), daemon=True).start()
    # The workers already run in parallel; threads inside them would compete for the same CPUs.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_with(lifeline: Connection) -> None:
    """End this process as soon as the main process has ended."""
    lifeline.poll(None)
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
