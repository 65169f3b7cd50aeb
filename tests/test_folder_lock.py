"""`engine.folder_lock`: one run at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from engine import folder_lock
from engine.errors import InputError
from engine.folder_lock import LOCK_FILE, claim, release

REPOSITORY = Path(__file__).resolve().parents[1]
has_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sees other processes in /proc")
WATCH = 0.4

# Says what it got, holds it until a line comes in, and ends in the way that is asked for.
SCRIPT = """
import sys
from pathlib import Path
from engine import folder_lock
from engine.errors import InputError
folder_lock.WATCH_SECONDS, folder_lock.HEARTBEAT_SECONDS = float(sys.argv[2]), 0.1
try:
    print("claimed", folder_lock.claim(Path(sys.argv[1])), flush=True)
except InputError as error:
    print("refused", error, flush=True)
sys.stdin.readline()
sys.exit(sys.argv[3] or 0)
"""


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(folder_lock, "WATCH_SECONDS", WATCH)
    monkeypatch.setattr(folder_lock, "HEARTBEAT_SECONDS", 0.05)
    yield
    release(tmp_path)


@contextlib.contextmanager
def other_process(folder: Path, end: str = "") -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", SCRIPT, str(folder), str(WATCH), end]
    process = subprocess.Popen(command, cwd=REPOSITORY, text=True, **pipes)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def write_lock(folder: Path, **changes: object) -> Path:
    """A lock as another machine writes it, with these changes."""
    owner = asdict(replace(folder_lock._this_process(), host="far", pid=17, view="another machine")) | changes
    path = folder / LOCK_FILE
    path.write_bytes(folder_lock._beat(0) + json.dumps(owner).encode())
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- holding and releasing


def test_a_process_holds_a_folder_until_it_releases_it(tmp_path: Path) -> None:
    assert claim(tmp_path) == "" and claim(tmp_path / "." / "") is None
    assert names(tmp_path) == [LOCK_FILE]
    release(tmp_path)
    release(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("end", ["", "with an error"])
def test_the_end_of_the_process_releases_it(tmp_path: Path, end: str) -> None:
    with other_process(tmp_path, end) as process:
        assert process.stdout.readline() == "claimed \n"
        assert names(tmp_path) == [LOCK_FILE]
        process.communicate("\n")
        assert process.returncode == bool(end)
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_fork_does_not_release_it(tmp_path: Path) -> None:
    claim(tmp_path)
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            release(tmp_path)
            folder_lock.release_all()
        os._exit(0)
    os.waitpid(pid, 0)
    assert names(tmp_path) == [LOCK_FILE]


def test_the_number_in_the_file_grows(tmp_path: Path) -> None:
    claim(tmp_path)
    first = (tmp_path / LOCK_FILE).read_bytes()
    deadline = time.monotonic() + 10
    while (tmp_path / LOCK_FILE).read_bytes() == first:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len((tmp_path / LOCK_FILE).read_bytes()) == len(first)


def test_a_lock_that_was_removed_by_hand_comes_back(tmp_path: Path) -> None:
    claim(tmp_path)
    (tmp_path / LOCK_FILE).unlink()
    deadline = time.monotonic() + 10
    while not (tmp_path / LOCK_FILE).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    release(tmp_path)
    assert names(tmp_path) == []


# ---------------------------------------------------------------- in use


@has_proc
def test_a_folder_in_use_is_refused_at_once_and_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_lock, "WATCH_SECONDS", 60)
    with other_process(tmp_path) as process:
        assert process.stdout.readline() == "claimed \n"
        began = time.monotonic()
        with pytest.raises(InputError) as caught:
            claim(tmp_path)
        assert time.monotonic() - began < 10 and names(tmp_path) == [LOCK_FILE]
        message = str(caught.value)
        assert message.startswith(f"OUTPUT_DIR {tmp_path} is in use by another run (process {process.pid} on ")
        assert message.endswith(
            f"choose another OUTPUT_DIR, or, if that run is really gone, remove {tmp_path / LOCK_FILE}"
        )
        assert ", since 20" in message and "\n" not in message


def test_the_owner_of_another_machine_is_watched(tmp_path: Path) -> None:
    path, is_over = write_lock(tmp_path), threading.Event()
    content = path.read_bytes()

    def beat() -> None:
        count = 0
        while not is_over.wait(0.02):
            count += 1
            with path.open("r+b") as file:
                file.write(folder_lock._beat(count))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(InputError, match="in use by another run .process 17 on far, since "):
            claim(tmp_path)
    finally:
        is_over.set()
        thread.join()
    assert path.read_bytes()[13:] == content[13:]


def test_a_lock_that_is_just_being_written_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / LOCK_FILE
    path.write_bytes(b"")
    writer = threading.Timer(WATCH / 2, write_lock, (tmp_path,))
    writer.start()
    with pytest.raises(InputError, match="in use by another run"):
        claim(tmp_path)
    writer.join()
    assert path.exists()


# ---------------------------------------------------------------- taken over


@has_proc
def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while nobody has asked for its exit code, when it is a zombie."""
    monkeypatch.setattr(folder_lock, "WATCH_SECONDS", 60)
    with other_process(tmp_path) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        began = time.monotonic()
        told = claim(tmp_path)
        assert f"run.lock: the lock of process {process.pid} on " in told and told.endswith("ended, was taken over")
        assert time.monotonic() - began < 10 and names(tmp_path) == [LOCK_FILE]


@has_proc
def test_another_process_of_the_same_number_is_not_the_owner(tmp_path: Path) -> None:
    started = folder_lock._start_of(os.getppid())[1]
    write_lock(tmp_path, pid=os.getppid(), view=folder_lock._view(), started=started)
    with pytest.raises(InputError, match="in use"):
        claim(tmp_path)
    write_lock(tmp_path, pid=os.getppid(), view=folder_lock._view(), started=f"{int(started) - 1}")
    assert "taken over" in claim(tmp_path)


@has_proc
def test_a_lock_from_before_an_exec_is_the_same_process(tmp_path: Path) -> None:
    own = folder_lock._this_process()
    write_lock(tmp_path, pid=own.pid, view=own.view, started=own.started)
    assert "taken over" in claim(tmp_path)


def test_threads_of_a_process_share_the_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(lambda _: claim(tmp_path), range(8)))
    assert sorted(map(repr, told)) == ["''", *["None"] * 7]


def test_a_silent_owner_of_another_machine_gives_way(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    write_lock(tmp_path)
    began = time.monotonic()
    assert "the lock of process 17 on far, since " in claim(tmp_path)
    assert time.monotonic() - began >= WATCH
    (record,) = said.records
    assert "to see whether its owner is alive: process 17 on far" in record.getMessage()


DAMAGE = {
    "empty": b"",
    "half": b'000000000001\n{"host": "a", "pid": 1',
    "no object": b"0\n[1, 2]",
    "no text": b"\xff\xfe\x00" * 100,
    "huge": b"x" * 10_000_000,
    "deep": b"0\n" + b"[" * 4000,
    "number": b"0\n" + b"9" * 4000,
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_lock_is_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCK_FILE).write_bytes(content)
    assert claim(tmp_path) == f"{tmp_path / LOCK_FILE}: a damaged lock was taken over"


@pytest.mark.parametrize(
    "changes", [{"pid": "17"}, {"pid": -1}, {"pid": 10**30}, {"token": "../x"}, {"host": None}, {"more": 1}], ids=str
)
def test_a_lock_of_wrong_values_is_a_damaged_one(tmp_path: Path, changes: dict[str, object]) -> None:
    write_lock(tmp_path, **changes)
    assert "a damaged lock" in claim(tmp_path)
    assert names(tmp_path) == [LOCK_FILE]


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize("kind", [_folder, _pipe, _link])
def test_what_is_no_file_is_answered_in_one_line(tmp_path: Path, kind: Callable[[Path], None]) -> None:
    path = tmp_path / LOCK_FILE
    kind(path)
    with pytest.raises(InputError) as caught:
        claim(tmp_path)
    assert str(caught.value).startswith(f"{path}: cannot be read as the lock of a run (")
    assert str(caught.value).endswith("; remove it, or choose another OUTPUT_DIR")
    assert names(tmp_path) == [LOCK_FILE]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(folder_lock.os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        claim(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("stale", ["killed", "far", "damaged", "none"])
def test_of_many_newcomers_exactly_one_gets_the_folder(tmp_path: Path, stale: str) -> None:
    """Ten at once, as a sweep that forgot to give each run a folder of its own; the others get a line each."""
    if stale == "killed":
        write_lock(tmp_path, pid=2**31 - 1, view=folder_lock._view())
    elif stale == "far":
        write_lock(tmp_path)
    elif stale == "damaged":
        (tmp_path / LOCK_FILE).write_bytes(b"")
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(other_process(tmp_path)) for _ in range(10)]
        answers = [process.stdout.readline() for process in processes]
        winners = [k for k, answer in enumerate(answers) if answer.startswith("claimed")]
        assert len(winners) == 1, answers
        owner = f"in use by another run (process {processes[winners[0]].pid} on "
        assert all(owner in answer for k, answer in enumerate(answers) if k != winners[0]), answers
        assert names(tmp_path) == [LOCK_FILE]
        processes[winners[0]].communicate("\n")
    assert names(tmp_path) == []


def test_a_run_that_was_suspended_ends_when_another_has_taken_the_folder(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        process.stdout.readline()
        path = write_lock(tmp_path)
        content = path.read_bytes()
        assert process.wait(timeout=20) == 2
        (line,) = process.stderr.read().splitlines()
        assert line.startswith(f"error: OUTPUT_DIR {tmp_path} was taken over by another run (process 17 on far, since ")
        assert path.read_bytes()[13:] == content[13:]
