"""What image libraries print to stderr (libjpeg: "Corrupt JPEG data: ..."), caught so that the file can be named.

They print with C's `fprintf(stderr, ...)`. The variable `stderr` of the C library is pointed at memory meanwhile; file
descriptor 2, to which Python and other processes write, is left alone. See docs/decisions/library-messages.md.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import cv2

Result = TypeVar("Result")


def silence_opencv() -> None:
    """Turn off OpenCV's own log: its user gets an `InputError`, which is enough."""
    for module in (getattr(cv2.utils, "logging", None), cv2):  # OpenCV 5, OpenCV 4
        if hasattr(module, "setLogLevel"):
            module.setLogLevel(0)
            return


def with_messages(call: Callable[[], Result]) -> tuple[Result, list[str]]:
    """What `call` returns, and the lines that C code printed to stderr meanwhile.

    Threads may do this at once. If anything was printed it is not known by whose call, so `call` is made again, alone.
    """
    with _stderr.redirected() as printed:
        result = call()
    if not printed:
        return result, []
    with _stderr.redirected(alone=True) as printed:
        result = call()
    return result, "".join(printed).splitlines()


class _Stderr:
    """C's `stderr` of this process, and a stream in memory that can take its place."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._num_inside, self._num_waiting, self._is_alone = 0, 0, False
        self._variable = _stderr_variable()
        if self._variable is None:
            return
        self._real = self._variable.value
        library = ctypes.CDLL(None)
        library.open_memstream.restype = ctypes.c_void_p
        self._flush = library.fflush
        self._flush.argtypes = [ctypes.c_void_p]
        self._buffer, self._size = ctypes.c_void_p(), ctypes.c_size_t()
        self._stream = library.open_memstream(ctypes.byref(self._buffer), ctypes.byref(self._size))

    @contextmanager
    def redirected(self, alone: bool = False) -> Iterator[list[str]]:
        """The list gets an entry if anything was printed within the block: all of it if `alone`, else "".

        Others that are in such a block do not wait for each other, unless one is to be `alone`.
        """
        printed: list[str] = []
        start = None
        try:
            with self._changed:
                self._wait(alone)
                if not self._num_inside:
                    self._point_at_memory()
                start = self._num_printed()
                self._num_inside, self._is_alone = self._num_inside + 1, alone
            yield printed
        finally:
            if start is not None:  # not interrupted while waiting
                self._leave(start, alone, printed)

    def _leave(self, start: int, alone: bool, printed: list[str]) -> None:
        with self._changed:
            end = self._num_printed()
            if end > start:  # the buffer may move while others print
                printed.append(self._text(start, end) if alone else "")
            self._num_inside, self._is_alone = self._num_inside - 1, False
            if not self._num_inside:
                self._point_at_real()
            self._changed.notify_all()

    def _wait(self, alone: bool) -> None:
        self._num_waiting += alone
        try:
            # Those that share give way, or one that waits to be alone might wait for ever.
            while self._is_alone or (self._num_inside if alone else self._num_waiting):
                self._changed.wait()
        finally:
            self._num_waiting -= alone
            self._changed.notify_all()

    def _point_at_memory(self) -> None:
        if self._variable is not None:
            self._real, self._variable.value = self._variable.value, self._stream

    def _point_at_real(self) -> None:
        if self._variable is not None:
            self._variable.value = self._real

    def _num_printed(self) -> int:
        """Bytes in memory since the start of the process; damaged files are few."""
        if self._variable is None:
            return 0
        self._flush(self._stream)
        return self._size.value

    def _text(self, start: int, end: int) -> str:
        return ctypes.string_at(self._buffer.value + start, end - start).decode(errors="replace")

    def restart_in_child(self) -> None:
        """After a fork: the threads of the parent that were reading images do not exist here."""
        self._changed = threading.Condition()
        self._num_inside, self._num_waiting, self._is_alone = 0, 0, False
        self._point_at_real()


def _stderr_variable() -> ctypes.c_void_p | None:
    """The variable `stderr` of the C library where it may be set: glibc and macOS; it is constant in musl."""
    try:
        library = ctypes.CDLL(None)
        name = "stderr" if hasattr(library, "gnu_get_libc_version") else "__stderrp"
        return ctypes.c_void_p.in_dll(library, name)
    except (OSError, TypeError, ValueError):  # Windows, musl
        return None


_stderr = _Stderr()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stderr.restart_in_child)
