"""The parent of the workers: it owns the port, starts them again when they die, and answers signals.

It imports neither torch nor the model, so it stays small and starts at once.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NoReturn

from prometheus_client.multiprocess import mark_process_dead

from engine.errors import EXIT_INTERRUPTED, InputError
from engine.log import get_logger
from engine.serve.plan import OPEN, READY, STOP, WorkerPlan, start_worker

RESTART_SECONDS = 2.0
"""Between the death of a worker and its replacement, so that one that cannot live does not fill the machine."""
_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""See `metrics`."""
_BACKLOG = 128
_STOP_SECONDS = 5.0
"""On top of the workers' own limit, before those that do not end are killed."""

logger = get_logger(__name__)


def open_port(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one.

    Raises:
        InputError: there is no such address here, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise InputError(f"--host {host}: no such address on this machine ({error})") from None
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{host}:{port} cannot be listened on ({reason}); name another --port or --host") from None
    return listening


def address_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    is_ready: bool = False


class Supervisor:
    """Runs `num_workers` processes until a signal.

    Args:
        plan: pickled for each worker.
        listening: shared by all.
        num_workers: at least 1.
        stop_seconds: in which workers answer what they have accepted.
    """

    def __init__(self, plan: WorkerPlan, listening: socket.socket, num_workers: int, stop_seconds: float) -> None:
        self._plan, self._listening, self._num_workers = plan, listening, num_workers
        self._stop_seconds = stop_seconds
        self._context = multiprocessing.get_context("spawn")  # torch and its threads do not survive a fork
        self._workers: list[_Worker] = []
        self._restarts: list[float] = []  # when, in seconds of the monotonic clock
        self._num_signals = 0
        self._was_complete = False

    def run(self) -> int:
        """The exit code: 0 after a signal, if all workers ended by themselves.

        Raises:
            InputError: the model cannot be loaded.
        """
        with _metrics_folder(), self._signals() as bell:
            try:
                for _ in range(self._num_workers):
                    self._start()
                while not self._num_signals:
                    self._attend(bell)
                return self._stop()
            finally:
                for worker in self._workers:
                    worker.process.kill()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        arguments = self._plan, self._listening, theirs, self._was_complete
        process = self._context.Process(target=start_worker, args=arguments, daemon=True)
        with _signals_held():
            process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours))

    def _attend(self, bell: socket.socket) -> None:
        """Wait for the next thing that happens, and deal with it."""
        now = time.monotonic()
        patience = max(min(self._restarts) - now, 0) if self._restarts else None
        sources = [bell, *(w.pipe for w in self._workers), *(w.process.sentinel for w in self._workers)]
        wait(sources, patience)
        for worker in list(self._workers):
            self._hear(worker)
            if worker.process.exitcode is not None:
                self._bury(worker)
        for due in [each for each in self._restarts if each <= time.monotonic()]:
            self._restarts.remove(due)
            self._start()

    def _hear(self, worker: _Worker) -> None:
        """Take what a worker has said.

        Raises:
            InputError: the model cannot be loaded, and never has been.
        """
        with suppress(EOFError, OSError):
            while worker.pipe.poll():
                word, details = worker.pipe.recv()
                if word == READY:
                    worker.is_ready = True
                    self._open(details)
                elif self._was_complete:
                    logger.warning("the new worker cannot load the model: %s", details)
                else:
                    raise InputError(details)

    def _open(self, model: str) -> None:
        """Let the workers answer, at first when all are ready, so that no client meets one that is not."""
        if self._was_complete or sum(worker.is_ready for worker in self._workers) == self._num_workers:
            for worker in self._workers:
                _say(worker, OPEN)
            if not self._was_complete:
                logger.info("ready: %s, %d worker%s", model, self._num_workers, "s" * (self._num_workers > 1))
            self._was_complete = True

    def _bury(self, worker: _Worker) -> None:
        """Take a worker that has ended out of the figures, and plan for another.

        Raises:
            InputError: none has been ready yet, so another would not be either.
        """
        self._workers.remove(worker)
        worker.pipe.close()
        mark_process_dead(worker.process.pid)
        code = worker.process.exitcode
        if not self._was_complete:
            raise InputError(f"a worker ended with exit code {code} before it was ready; see the lines above")
        logger.warning("a worker ended with exit code %s; another one is started", code)
        self._restarts.append(time.monotonic() + RESTART_SECONDS)

    def _stop(self) -> int:
        """Tell the workers to drain, and wait for their end."""
        logger.info("stopping: requests that were accepted are answered; another signal ends at once")
        for worker in self._workers:
            _say(worker, STOP)
        end = time.monotonic() + self._stop_seconds + _STOP_SECONDS
        for worker in self._workers:
            worker.process.join(max(end - time.monotonic(), 0))
        late = [worker for worker in self._workers if worker.process.exitcode is None]
        failed = [worker for worker in self._workers if worker.process.exitcode]
        if late:
            logger.warning("%d worker(s) did not end in time and were killed", len(late))
        return 1 if late or failed else 0

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """A socket that becomes readable when a signal to stop has come; a second signal ends everything at once."""
        heard, rings = socket.socketpair()

        def answer(number: int, frame: FrameType | None) -> None:
            self._num_signals += 1
            if self._num_signals > 1:
                self._end_at_once()
            with suppress(OSError):
                rings.send(b"!")

        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, answer) for number in numbers]
        try:
            yield heard
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
            heard.close()
            rings.close()

    def _end_at_once(self) -> NoReturn:
        for worker in self._workers:
            worker.process.kill()
        shutil.rmtree(os.environ.get(_FOLDER, ""), ignore_errors=True)
        os._exit(EXIT_INTERRUPTED)


@contextmanager
def _metrics_folder() -> Iterator[None]:
    """A folder in which the workers, which inherit the variable, keep their figures."""
    with tempfile.TemporaryDirectory(prefix="engine-serve-", ignore_cleanup_errors=True) as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


@contextmanager
def _signals_held() -> Iterator[None]:
    """Processes started within the block never get the signals that are the parent's to answer.

    A terminal sends Ctrl-C to all of them, and some service managers SIGTERM, which must not count twice.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # what a child inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _say(worker: _Worker, word: str) -> None:
    with suppress(OSError):  # it has ended, which `_attend` sees
        worker.pipe.send(word)
