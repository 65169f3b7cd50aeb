"""One run at a time in an output folder: a lock file that also works on network file systems without locks.

The file `run.lock` names the process that owns the folder, and its owner rewrites the number on its first line every
few seconds. A process that finds it looks for the owner in `/proc` if that could show it, so that the lock of a killed
run is taken over at once. The process of another machine or container cannot be seen: then the newcomer watches whether
the number changes. Clocks of two machines are never compared. See docs/decisions/run-lock.md.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import platform
import re
import shlex
import stat
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from engine.errors import EXIT_BAD_INPUT, InputError, print_error, printable
from engine.log import get_logger

LOCK_FILE = "run.lock"
HEARTBEAT_SECONDS = 3.0
WATCH_SECONDS = 20.0
"""How long an owner that cannot be seen may be silent: on a slow network, or while json reads gigabytes and no other
thread runs."""
_POLL_SECONDS = 0.1
_GUARD_SECONDS = 5.0  # the longest that removing a file may take
_MAX_BYTES = 1 << 14  # of a lock file; what is longer is not one
_BEAT_DIGITS = 12
_PLAIN_FILE = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY"))  # no pipe, no link

# ---------------------------------------------------------------- who


@dataclass(frozen=True)
class Owner:
    """The process that a lock file names.

    Attributes:
        host: name of its machine.
        pid: its process id, which another process may have later.
        view: the machine's start and the process id namespace, within which `pid` can be seen; "" where there is no
            `/proc`.
        started: when it started, in clock ticks since the start of the machine; "" where there is no `/proc`.
        since: when it took the folder, for readers.
        command: its command line, for readers.
        token: a name for this lock alone.
    """

    host: str
    pid: int
    view: str
    started: str
    since: str
    command: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {printable(self.host[:100])}, since {printable(self.since[:100])}"


def _this_process() -> Owner:
    since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    command = shlex.join(sys.orig_argv)[:500]
    pid = os.getpid()
    return Owner(platform.node(), pid, _view(), _start_of(pid)[1], since, command, uuid.uuid4().hex[:12])


def _view() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> tuple[str, str]:
    """State (a letter) and start of a process, both "" if `/proc` does not show it."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", ""
    fields = line.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return fields[0], fields[19]


def _is_running(owner: Owner) -> bool | None:
    """Whether the owner still runs; None if that cannot be seen from here."""
    if not owner.view or owner.view != _view():
        return None
    if owner.pid == os.getpid():  # it took the folder before an exec; what it holds now is in `_held`
        return False
    state, started = _start_of(owner.pid)
    if state:
        return started == owner.started and state not in "ZX"  # a zombie has ended
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return None  # /proc hides the processes of other users


# ---------------------------------------------------------------- the file


@dataclass(frozen=True)
class _Found:
    """A lock file as it was read: its owner (None if it is damaged), and a name for this very lock."""

    owner: Owner | None
    content: bytes
    identity: str


def _read(path: Path) -> _Found | None:
    """The lock file; None if there is none.

    Raises:
        InputError: what is there is not a file or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _PLAIN_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error.strerror or "not a file") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(path, "not a file")
        content = os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
    owner = _owner(content)
    # A damaged file has no token; the next file in its place may be as empty, but not as old.
    return _Found(owner, content, owner.token if owner else f"{status.st_ino:x}-{status.st_mtime_ns:x}")


def _owner(content: bytes) -> Owner | None:
    try:
        fields = json.loads(content.partition(b"\n")[2])
        owner = Owner(**fields)
        right = all(type(value) is (int if name == "pid" else str) for name, value in fields.items())
        return owner if right and 0 < owner.pid < 2**31 and re.fullmatch("[0-9a-f]{1,32}", owner.token) else None
    except (ValueError, TypeError, RecursionError):
        return None


def _unusable(path: Path, reason: str) -> InputError:
    advice = "remove it, or choose another OUTPUT_DIR"
    return InputError(f"{path}: cannot be read as the lock of a run ({reason}); {advice}")


def _beat(count: int) -> bytes:
    return f"{count:0{_BEAT_DIGITS}d}\n".encode()


def _create(path: Path, owner: Owner) -> int | None:
    """An open descriptor of the new lock file; None if there is one already.

    Raises:
        OSError: the folder cannot be written to; no file is left.
    """
    try:
        # O_EXCL holds on every file system, also on NFS since its version 3; locks on files do not.
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | _PLAIN_FILE, 0o666)
    except FileExistsError:
        return None
    try:
        content = _beat(0) + json.dumps(asdict(owner), indent=1).encode() + b"\n"
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    return descriptor


# ---------------------------------------------------------------- taking it


def _take(path: Path, owner: Owner) -> tuple[int, str]:
    """Become the owner of a lock file.

    Returns:
        Its open descriptor, and which lock was there before ("" for none).

    Raises:
        InputError: another process owns it.
        OSError: the folder cannot be written to.
    """
    before, patience = "", _GUARD_SECONDS / _POLL_SECONDS
    while True:
        descriptor = _create(path, owner)
        if descriptor is not None:
            return descriptor, before
        found = _watched(path)
        if found is None:
            continue
        before = f"the lock of {found.owner}, which has ended," if found.owner else "a damaged lock"
        # Of several newcomers only the one that holds this second lock may remove the first, and only while it is the
        # one that was judged: the others find a new lock there, which they must not remove.
        guard = path.with_name(f"{path.name}.{found.identity}")
        try:
            holds_guard, _ = _take(guard, owner)
        except InputError:
            if patience <= 0:
                raise
            patience -= 1
            time.sleep(_POLL_SECONDS)  # another newcomer is just taking it over
            continue
        try:
            present = _read(path)
            if present and present.identity == found.identity:
                path.unlink(missing_ok=True)
        finally:
            os.close(holds_guard)
            guard.unlink(missing_ok=True)


def _watched(path: Path) -> _Found | None:
    """The lock file once it is plain that nobody owns it any more; None if it is gone.

    Raises:
        InputError: its owner still runs.
    """
    first = _read(path)
    deadline, has_said = time.monotonic() + WATCH_SECONDS, False
    last = deadline + WATCH_SECONDS  # however often a file without an owner changes
    while first:
        is_running = _is_running(first.owner) if first.owner else None
        if is_running:
            raise _in_use(path, first.owner)
        if is_running is False or time.monotonic() > deadline:
            return first
        if not has_said:
            whose = first.owner or "an unknown process (the file is damaged)"
            message = "%s: waiting %.0f s to see whether its owner is alive: %s"
            get_logger(__name__).info(message, path, WATCH_SECONDS, whose)
            has_said = True
        time.sleep(_POLL_SECONDS)
        present = _read(path)
        if present and present.content != first.content:
            if present.owner:
                raise _in_use(path, present.owner)
            deadline = min(time.monotonic() + WATCH_SECONDS, last)  # it is being written
        first = present
    return None


def _in_use(path: Path, owner: Owner) -> InputError:
    command = printable(" ".join(owner.command.split())[:100])
    advice = f"choose another OUTPUT_DIR, or, if that run is really gone, remove {path}"
    return InputError(f"OUTPUT_DIR {path.parent} is in use by another run ({owner}: {command}); {advice}")


# ---------------------------------------------------------------- holding it


class _Held:
    """A lock that this process owns, with the thread that shows others that it is alive."""

    def __init__(self, path: Path) -> None:
        self.path, self.owner = path, _this_process()
        self.descriptor, self.before = _take(path, self.owner)
        self._count, self._is_over = 0, threading.Event()
        self._thread = threading.Thread(target=self._show_life, name="run.lock", daemon=True)
        self._thread.start()

    def _show_life(self) -> None:
        while not self._is_over.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError, InputError):  # the network may be away for a while
                self._beat()

    def _beat(self) -> None:
        """Rewrite the number through the open file, which cannot hit the lock of another owner."""
        found = _read(self.path)
        if found is None and self.path.parent.is_dir():  # removed by hand
            descriptor = _create(self.path, self.owner)
            if descriptor is not None:
                os.close(self.descriptor)
                self.descriptor = descriptor
        elif found and found.owner and found.owner.token != self.owner.token:
            self._end_process(found.owner)
        self._count += 1
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        os.write(self.descriptor, _beat(self._count))
        os.fsync(self.descriptor)

    def _end_process(self, owner: Owner) -> None:
        """This process was suspended or cut off for so long that another one has taken the folder."""
        message = f"OUTPUT_DIR {self.path.parent} was taken over by another run ({owner}) while this one was silent"
        print_error(f"error: {message}; this one ends, since both would write the same files")
        os._exit(EXIT_BAD_INPUT)  # an exception, or a signal that saves a checkpoint, would write into the folder

    def release(self) -> None:
        self._is_over.set()
        self._thread.join()
        os.close(self.descriptor)
        with contextlib.suppress(OSError, InputError):
            found = _read(self.path)
            if found and found.owner and found.owner.token == self.owner.token:
                self.path.unlink(missing_ok=True)


_held: dict[Path, _Held] = {}
_claiming = threading.Lock()  # of several threads the first takes the lock, for all


def claim(folder: Path) -> str | None:
    """Make this process the only one that writes into `folder`, until `release` or its end.

    Returns:
        A line for the log if the lock of an ended run was taken over, "" if there was none; None if this process holds
        the folder already.

    Raises:
        InputError: another run writes into it; the folder was not changed.
        OSError: the folder cannot be written to.
    """
    path = Path(os.path.realpath(folder)) / LOCK_FILE
    with _claiming:
        held = _held.get(path)
        if held and held.owner.pid == os.getpid():  # not in a fork of the owner
            return None
        held = _held[path] = _Held(path)
    return f"{path}: {held.before} was taken over" if held.before else ""


def release(folder: Path) -> None:
    """Let others write into `folder`; nothing happens if this process does not hold it."""
    _release(Path(os.path.realpath(folder)) / LOCK_FILE)


def _release(path: Path) -> None:
    held = _held.get(path)
    if held and held.owner.pid == os.getpid():  # forks of the owner (loader workers) leave it alone
        del _held[path]
        held.release()


@atexit.register
def release_all() -> None:
    """Let others write into the folders that this process holds; needed only before `os._exit`."""
    for path in list(_held):
        _release(path)
