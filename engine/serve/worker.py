"""A process of the server: it loads the model, answers requests, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import NoReturn

import uvicorn
from tqdm import tqdm

from engine.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, InputError
from engine.log import get_logger, setup_logging
from engine.serve.app import Application, create_app
from engine.serve.connection import LimitedConnection
from engine.serve.metrics import Metrics
from engine.serve.plan import FAILED, OPEN, READY, STOP, WorkerPlan
from engine.serve.service import Service

_KEEP_ALIVE_SECONDS = 30
_CLOSE_SECONDS = 3
_POLL_SECONDS = 0.02
_STUCK_POLL_SECONDS = 1.0
_STUCK_TIMEOUTS = 2
"""How often a client would have given up on a network before its worker does."""

logger = get_logger(__name__)


def run_worker(plan: WorkerPlan, listening: socket.socket, parent: Connection, is_replacement: bool) -> NoReturn:
    """Answer the connections of `listening` until `parent` says stop, and end the process; see `plan.start_worker`."""
    tqdm.set_lock(threading.RLock())  # the log's; its own is one between processes, which would have to be cleaned up
    setup_logging()
    service = Service(plan.load, plan.limits, Metrics(), plan.watched)
    server = _Server(create_app(service, plan.api_key), service, parent)

    async def run() -> NoReturn:
        code = await server.answer(listening, is_replacement)
        logging.shutdown()
        os._exit(code)  # a thread may still read a model, for minutes

    asyncio.run(run())


class _Server(uvicorn.Server):
    """uvicorn's server, which stops when its parent says so."""

    def __init__(self, app: Application, service: Service, parent: Connection) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=functools.partial(LimitedConnection, service.limits),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_CLOSE_SECONDS,
            )
        )
        self._app, self._service, self._parent = app, service, parent
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """uvicorn's answer to signals, which are the parent's here."""

    async def answer(self, listening: socket.socket, is_replacement: bool) -> int:
        """Serve to the end; the exit code."""
        threading.Thread(target=self._listen, args=(asyncio.get_running_loop(),), daemon=True).start()
        loading = asyncio.create_task(self._load())
        self._tasks.append(asyncio.create_task(self._drain()))
        if is_replacement:
            if code := await loading:
                return code
            self._service.open()  # before it takes a connection, which must not meet a server that starts
        await self.serve([listening])
        return loading.result() if loading.done() else 0

    async def _load(self) -> int:
        """Load the model and begin to watch its file; an exit code other than 0 if it cannot be loaded."""
        try:
            await self._service.start()
        except InputError as error:
            self._tell(FAILED, str(error))
            self.should_exit = True
            return EXIT_BAD_INPUT
        except Exception as error:
            self._tell(FAILED, f"the model cannot be loaded: {type(error).__name__}: {error}")
            self.should_exit = True
            raise
        self._tell(READY, self._service.model.name)
        self._tasks += [asyncio.create_task(each) for each in (self._service.watch(), self._give_up_if_stuck())]
        return 0

    async def _give_up_if_stuck(self) -> NoReturn:
        """End the process, which the parent replaces, once the network does not come back: a thread cannot be ended."""
        most = _STUCK_TIMEOUTS * self._service.limits.timeout
        while self._service.seconds_in_network < most:
            await asyncio.sleep(_STUCK_POLL_SECONDS)
        logger.error("the network has been busy with the same images for more than %g seconds; this worker ends", most)
        logging.shutdown()
        os._exit(1)

    async def _drain(self) -> None:
        """Once told to stop: refuse what is new, wait for what was accepted before, and end."""
        await self._stopping.wait()
        self._service.stop()
        accepted = set(self._app.open)
        end = time.monotonic() + self._service.limits.timeout
        while not accepted.isdisjoint(self._app.open) and time.monotonic() < end:
            await asyncio.sleep(_POLL_SECONDS)
        self.should_exit = True

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do what the parent says, in a thread; without it, the process ends."""
        actions = {OPEN: self._service.open, STOP: self._stopping.set}
        while True:
            try:
                word = self._parent.recv()
            except (EOFError, OSError):
                os._exit(EXIT_INTERRUPTED)
            loop.call_soon_threadsafe(actions[word])

    def _tell(self, word: str, details: str) -> None:
        with suppress(OSError):  # `_listen` sees it
            self._parent.send((word, details))
