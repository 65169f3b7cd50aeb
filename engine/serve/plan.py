"""What a worker is started with, and what it and its parent say to each other. Imports nothing that takes time."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.serve.limits import Limits
    from engine.serve.model import Load

READY, FAILED = "ready", "failed"
"""From a worker: (READY, name of the model) or (FAILED, why it cannot be loaded)."""
OPEN, STOP = "open", "stop"
"""To a worker that is ready: answer requests; to any: drain, and end. The end of the pipe: end at once."""


@dataclass(frozen=True)
class WorkerPlan:
    """What every worker is started with.

    Attributes:
        load: reads the model.
        limits: of this worker.
        watched: files of the model.
        api_key: that clients must send; "" for none.
    """

    load: Load
    limits: Limits
    watched: Sequence[Path] = ()
    api_key: str = ""


def start_worker(plan: WorkerPlan, listening: socket.socket, parent: Connection, is_replacement: bool) -> None:
    """The main function of a worker process.

    Args:
        is_replacement: other workers answer already, so it takes no connection before its model is loaded.
    """
    from engine.serve.worker import run_worker

    run_worker(plan, listening, parent, is_replacement)
