"""What image libraries print to stderr (libjpeg: "Corrupt JPEG data: ..."), caught so that the file can be named.

They print with C's `fprintf(stderr, ...)`. The variable `stderr` of the C library is pointed at memory meanwhile; file
descriptor 2, to which Python and other processes write, is left alone. See docs/decisions/library-messages.md.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2


def silence_opencv() -> None:
    """Turn off OpenCV's own log: its user gets an `InputError`, which is enough."""
    for module in (getattr(cv2.utils, "logging", None), cv2):  # OpenCV 5, OpenCV 4
        if hasattr(module, "setLogLevel"):
            module.setLogLevel(0)
            return


class _StderrInMemory:
    """C's `stderr` of this process, and a stream in memory that can take its place."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
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
        self._num_read = 0

    def start(self) -> None:
        if self._variable is not None:
            self._real, self._variable.value = self._variable.value, self._stream

    def stop(self) -> str:
        """What was printed since `start`."""
        if self._variable is None:
            return ""
        self._variable.value = self._real
        self._flush(self._stream)
        start, self._num_read = self._num_read, self._size.value
        if self._num_read == start:
            return ""
        text = ctypes.string_at(self._buffer.value + start, self._num_read - start)
        return text.decode(errors="replace")

    def restart_in_child(self) -> None:
        """After a fork: a thread of the parent that was reading an image does not exist here."""
        self.lock = threading.Lock()
        if self._variable is not None:
            self._variable.value = self._real


def _stderr_variable() -> ctypes.c_void_p | None:
    """The variable `stderr` of the C library where it may be set: glibc and macOS; it is constant in musl."""
    try:
        library = ctypes.CDLL(None)
        name = "stderr" if hasattr(library, "gnu_get_libc_version") else "__stderrp"
        return ctypes.c_void_p.in_dll(library, name)
    except (OSError, TypeError, ValueError):  # Windows, musl
        return None


_stderr = _StderrInMemory()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stderr.restart_in_child)


@contextmanager
def caught_messages() -> Iterator[list[str]]:
    """Lines that C code printed to stderr within the block, known when it ends. One thread at a time."""
    lines: list[str] = []
    with _stderr.lock:
        _stderr.start()
        try:
            yield lines
        finally:
            lines += _stderr.stop().splitlines()
