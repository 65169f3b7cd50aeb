"""What a command does about signals, with real signals to this process and an exit that is only noted."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from engine.errors import SIGNALS
from engine.signals import Answer, SignalWatch, current_watch, nothing_to_save


class Exits:
    """Stands for `os._exit`: notes the codes."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.came = threading.Event()

    def __call__(self, code: int) -> None:
        self.codes.append(code)
        self.came.set()


@pytest.fixture
def exits() -> Exits:
    return Exits()


@pytest.fixture(autouse=True)
def handlers_are_restored() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before and current_watch() is None
    fd = signal.set_wakeup_fd(-1)
    assert fd == -1
    signal.set_wakeup_fd(fd)


def _send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_one_line_and_a_code(exits: Exits, number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    with SignalWatch(nothing_to_save("in testing: nothing was changed", code=75), exit=exits):
        _send(number)
        assert exits.came.wait(5)
    assert exits.codes == [75]
    assert capsys.readouterr().err == f"{number.name} in testing: nothing was changed\n"


def test_the_log_has_the_line(exits: Exits, said: pytest.LogCaptureFixture) -> None:
    logging.getLogger("engine").addHandler(logging.NullHandler())
    with SignalWatch(nothing_to_save("in testing"), exit=exits):
        _send(signal.SIGTERM)
        assert exits.came.wait(5)
    assert said.messages == ["SIGTERM in testing"] and exits.codes == [130]


def test_the_main_thread_has_time_to_end_by_itself(exits: Exits) -> None:
    ended: list[int] = []
    answer = Answer(lambda number: (ended.append(number), ("", 75))[1], patience=0.5)
    with SignalWatch(answer, exit=exits):
        _send(signal.SIGTERM)
        time.sleep(0.1)
    time.sleep(0.7)
    assert not ended and not exits.codes
    with SignalWatch(answer, exit=exits):
        _send(signal.SIGTERM)
        assert exits.came.wait(5)
    assert ended == [signal.SIGTERM] and exits.codes == [75]


def test_a_signal_is_heard_at_once(exits: Exits) -> None:
    heard = threading.Event()
    with SignalWatch(Answer(lambda _: ("", 0), patience=60, hear=lambda _: heard.set()), exit=exits):
        _send(signal.SIGUSR1)
        assert heard.wait(5)
    assert not exits.codes


@pytest.mark.parametrize("is_saved", [False, True])
@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_at_once_even_while_saving(
    exits: Exits, is_saved: bool, second: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    saving, saved = threading.Event(), threading.Event()

    def save(number: int) -> tuple[str, int]:
        saving.set()
        saved.wait(20)
        return "", 0

    with SignalWatch(Answer(save), exit=exits) as watch:
        watch.is_saved = is_saved
        _send(signal.SIGTERM)
        assert saving.wait(5)
        time.sleep(1.1)
        _send(second)
        assert exits.came.wait(2)
        assert exits.codes == [75 if is_saved else 130]
        saved.set()
    assert capsys.readouterr().err == f"{second.name} again: ended at once\n"


def test_echoes_and_other_processes_are_no_second_signal(exits: Exits) -> None:
    """A terminal and torchrun both pass on a Ctrl-C; torchrun sends SIGTERM once another process has ended."""
    with SignalWatch(Answer(lambda _: ("", 0), patience=60), exit=exits) as watch:
        for _ in range(3):
            _send(signal.SIGINT)
            time.sleep(0.05)
        assert not exits.came.wait(0.3)
    with SignalWatch(Answer(lambda _: ("", 0), patience=60), exit=exits) as watch:
        watch.forward(signal.SIGUSR1)
        time.sleep(1.2)
        _send(signal.SIGTERM)
        watch.forward(signal.SIGUSR1)
        assert not exits.came.wait(0.3)


def test_a_signal_of_another_process_is_answered(exits: Exits) -> None:
    numbers: list[int] = []
    with SignalWatch(Answer(lambda number: (numbers.append(number), ("", 75))[1]), exit=exits) as watch:
        watch.forward(signal.SIGTERM)
        assert exits.came.wait(5)
    assert numbers == [signal.SIGTERM] and exits.codes == [75]


def test_other_signals_are_left_alone(exits: Exits) -> None:
    """Torch has a handler for SIGCHLD, so its number comes through the same socket."""
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        with SignalWatch(nothing_to_save("in testing"), exit=exits):
            _send(signal.SIGCHLD)
            assert not exits.came.wait(0.3)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_cannot_be_saved_does_not_keep_the_process(exits: Exits, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(number: int) -> tuple[str, int]:
        raise OSError("no space left")

    with SignalWatch(Answer(fail), exit=exits):
        _send(signal.SIGTERM)
        assert exits.came.wait(5)
    assert exits.codes == [130]
    assert capsys.readouterr().err == "SIGTERM: ended; what was to be saved could not be: no space left\n"
