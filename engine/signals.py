"""Signals are answered within seconds, also while the main thread waits in C++ code.

Python runs its signal handlers in the main thread between two steps of Python code. A process that waits for another
one, in a collective operation, reaches no such step. The C part of a handler, however, writes the number of the signal
to a socket, and a thread that reads it can act, since those who wait do not hold Python's lock.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn

from engine import distributed, folder_lock
from engine.errors import EXIT_INTERRUPTED, EXIT_SAVED, SIGNALS, print_error
from engine.log import get_logger

ECHO_SECONDS = 1.0
"""Signals so soon after the first are the same notice: a terminal and torchrun each pass on one Ctrl-C."""
_FORWARDED = 128  # added to the number of a signal that another process has received
_STOP = 0


@dataclass(frozen=True)
class Answer:
    """What a process does about its first signal.

    Attributes:
        end: called in a thread with the number of the signal; returns a line for the log ("" for none) and the exit
            code, with which the process ends at once.
        patience: seconds before that, in which the main thread may end the process in its own way.
        hear: called in a thread at once with the number of the signal.
    """

    end: Callable[[int], tuple[str, int]]
    patience: float = 0.0
    hear: Callable[[int], None] = lambda number: None


@dataclass
class SignalWatch:
    """Within the block, the signals of `SIGNALS` are answered as `answer` says; a second one ends the process at once.

    Only a command uses it, since it ends the process. Its threads do not depend on the main thread.

    Attributes:
        answer: may be replaced at any time.
        is_saved: whether the work is saved, for the exit code of a second signal.
    """

    answer: Answer
    is_saved: bool = False
    exit: Callable[[int], NoReturn] = os._exit
    _previous: dict[int, object] = field(default_factory=dict, init=False)

    def __enter__(self) -> SignalWatch:
        global _watch
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, _leave_to_thread)
        self._previous_fd = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        _watch = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _watch
        _watch = None
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._writing.send(bytes([_STOP]))
        self._thread.join()
        self._reading.close()
        self._writing.close()

    def forward(self, number: int) -> None:
        """Answer a signal that another process of the run has received; it never counts as a second one."""
        with suppress(OSError):  # the watch has ended
            self._writing.send(bytes([_FORWARDED + number]))

    def _run(self) -> None:
        number = received = 0  # the first signal; how many came to this process itself
        first = deadline = None  # when the first came, when `end` is due
        while True:
            wait = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not select.select([self._reading], [], [], wait)[0]:
                threading.Thread(target=self._end, args=(number,), daemon=True).start()
                deadline = None
                continue
            for byte in self._reading.recv(64):
                if byte == _STOP:
                    return
                if byte % _FORWARDED not in SIGNALS:  # SIGCHLD of a loader worker
                    continue
                received += byte < _FORWARDED
                if first is None:
                    number, first = byte % _FORWARDED, time.monotonic()
                    deadline = first + self.answer.patience
                    _in_thread(self.answer.hear, number)
                elif received > 1 and byte < _FORWARDED and time.monotonic() > first + ECHO_SECONDS:
                    self.leave(f"{signal.Signals(byte).name} again: ended at once", self._code())

    def _code(self) -> int:
        return EXIT_SAVED if self.is_saved else EXIT_INTERRUPTED

    def _end(self, number: int) -> None:
        line, code = "", self._code()
        try:
            line, code = self.answer.end(number)
        except BaseException as error:
            line = f"{signal.Signals(number).name}: ended; what was to be saved could not be: {error}"
        finally:
            self.leave(line, code)

    def leave(self, line: str, code: int) -> None:
        """End this process without its main thread; a full pipe or a lock must not keep it."""
        if line:
            _in_thread(_say, line).join(1.0)
        _in_thread(sys.stdout.flush).join(0.5)
        _in_thread(folder_lock.release_all).join(1.0)
        self.exit(code)


_watch: SignalWatch | None = None


def current_watch() -> SignalWatch | None:
    """The watch of the command that this process runs, if there is one."""
    return _watch


def _leave_to_thread(number: int, frame: object) -> None:
    """A handler in Python is needed for the C part to run; the thread does the work."""


def _say(line: str) -> None:
    if get_logger().handlers:
        get_logger(__name__).log(logging.INFO if distributed.is_main() else logging.WARNING, line)
    else:  # the process is still starting
        print_error(line)


def _in_thread(function: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments, daemon=True)
    thread.start()
    return thread


def nothing_to_save(what: str, code: int = EXIT_INTERRUPTED) -> Answer:
    """The answer of work that leaves nothing behind: one line, which begins with the signal and `what`."""
    return Answer(lambda number: (f"{signal.Signals(number).name} {what}" if distributed.is_main() else "", code))
