from __future__ import annotations

import ctypes
import multiprocessing
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.data.library_messages import _stderr, with_messages

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names of glibc")


def stream() -> int | None:
    return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr").value


def say(text: str) -> None:
    """As C code does."""
    library = ctypes.CDLL(None)
    library.fputs(text.encode(), ctypes.c_void_p(stream()))


def test_nothing_printed_means_one_call() -> None:
    calls: list[int] = []
    before = stream()
    assert with_messages(lambda: calls.append(stream())) == (None, [])
    assert len(calls) == 1 and calls[0] != before == stream()


def test_lines_are_those_of_the_call(capfd: pytest.CaptureFixture) -> None:
    for number in range(300):  # more than the first buffer in memory holds
        assert with_messages(lambda number=number: say(f"{number}\n" + "x" * 100 + "\n"))[1] == [str(number), "x" * 100]
    assert capfd.readouterr().err == ""
    print("Python", file=sys.stderr)
    say("C")
    ctypes.CDLL(None).fflush(None)
    assert sorted(capfd.readouterr().err.split()) == ["C", "Python"]


def test_an_error_puts_stderr_back() -> None:
    before = stream()
    with pytest.raises(ZeroDivisionError):
        with_messages(lambda: 1 // 0)
    assert stream() == before and with_messages(lambda: say("a"))[1] == ["a"]


def test_quiet_calls_of_threads_run_at_once() -> None:
    meet = threading.Barrier(3, timeout=10)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: with_messages(meet.wait), range(3)))


def test_threads_get_their_own_lines() -> None:
    def call(number: int) -> list[str]:
        return with_messages(lambda: say(f"line of {number}\n") if number % 3 == 0 else None)[1]

    with ThreadPoolExecutor(8) as pool:
        lines = list(pool.map(call, range(600)))
    assert lines == [[f"line of {number}"] if number % 3 == 0 else [] for number in range(600)]
    assert _stderr._num_inside == _stderr._num_waiting == 0


def test_a_fork_in_the_middle_of_a_call() -> None:
    """The child has no thread that would leave the call, and must not wait for one."""
    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=with_messages, args=(lambda: (inside.set(), leave.wait(20)),))
    thread.start()
    inside.wait(10)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(with_messages(lambda: say("child"))[1]))
    child.start()
    child.join(20)
    leave.set()
    thread.join()
    assert child.exitcode == 0 and queue.get() == ["child"]
