"""The processes that read images: how they begin, how they end, and the one line when one of them dies."""

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

from engine.errors import InputError, signal_numbers

Pipe = tuple[Connection, Connection]


def worker_arguments(num_workers: int) -> dict[str, Any]:
    """What a torch DataLoader takes to read with `num_workers` processes, at least one.

    On Linux they are forks of this process, which share the annotations. Python's own choice from 3.14 on is a server
    of forks: each would get a copy, and a signal to the whole job would end the server.
    """
    return {
        "num_workers": num_workers,
        "worker_init_fn": partial(_start_worker, _lifeline(os.getpid())),
        "multiprocessing_context": "fork" if sys.platform == "linux" else None,
        "persistent_workers": True,
    }


@cache
def _lifeline(pid: int) -> Pipe:
    """The two ends of a pipe of process `pid` (the caller) and all its workers; they end when it does, in whatever way.

    At an exit it writes; after a SIGKILL no writing end is left. Both make the workers' end readable. Signals cannot
    say it: workers ignore them.
    """
    reading_end, writing_end = multiprocessing.Pipe(duplex=False)
    # Runs before Python waits for its workers; processes that were forked meanwhile have no business here.
    atexit.register(lambda: writing_end.send_bytes(b"end") if os.getpid() == pid else None)
    return reading_end, writing_end


def _start_worker(lifeline: Pipe, worker_id: int) -> None:
    """Workers are the parallelism; threads inside them would only get in each other's way.

    A signal to the whole job is for the main process to answer.
    """
    for number in signal_numbers():
        signal.signal(number, signal.SIG_IGN)
    reading_end, writing_end = lifeline
    writing_end.close()
    threading.Thread(target=_end_with, args=(reading_end,), daemon=True).start()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_with(lifeline: Connection) -> None:
    """Whatever the worker does at that moment; one that waits for its full pipe to be emptied would wait for ever."""
    lifeline.poll(None)
    os._exit(0)


@contextmanager
def naming_dead_workers() -> Iterator[None]:
    """A process that reads images and dies becomes one line.

    Torch tells of it in the middle of whatever the main process does at that moment, so this belongs around all work on
    the batches of a loader.

    Raises:
        InputError: it was killed, or it ended; says which.
    """
    try:
        yield
    except RuntimeError as error:  # torch's only word for it
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise InputError(
            f"{str(error).splitlines()[0].rstrip('. ')}: it was reading images; if it was killed, memory ran out: "
            "lower DATALOADER.NUM_WORKERS"
        ) from None
