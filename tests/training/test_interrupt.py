"""The effect of a signal on a training, tested with real signals to this process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoint import Checkpointer, io
from engine.errors import SIGNALS, Interrupted
from engine.training.hooks import Run
from engine.training.interrupt import InterruptHook
from engine.training.loop import Step


def _step(iteration: int) -> Step:
    return Step(iteration, {}, torch.zeros(()), 0.0, 0.0, 0.0, [])


def _hook(folder: Path) -> InterruptHook:
    model = nn.BatchNorm2d(1)
    run = Run(model, torch.optim.SGD(model.parameters(), 0.1), folder, 9)
    return InterruptHook(run, Checkpointer(folder), lambda done, buffers: {"model": buffers, "iteration": done})


def _take(hook: InterruptHook, step: Step) -> None:
    hook.before_update()
    hook.after_step(step)
    hook.settle()


def _send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)  # Python handles it before the next line


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[InterruptHook]:
    hook = _hook(tmp_path)
    hook.before_train(0)
    yield hook
    hook.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_the_step_is_saved_and_the_log_says_where(
    hook: InterruptHook, tmp_path: Path, number: signal.Signals, said: pytest.LogCaptureFixture
) -> None:
    _take(hook, _step(0))  # no signal yet
    _send(number)
    assert not list(tmp_path.iterdir())
    with pytest.raises(Interrupted):
        _take(hook, _step(6))
    path = tmp_path / "model_0000007.pth"
    assert said.messages == [f"{number.name} at iteration 7: saved in {path}; continue with --resume"]
    assert io.load(path)["iteration"] == 7 and Checkpointer(tmp_path).last() == path


@pytest.mark.parametrize("first", SIGNALS)
def test_a_second_ctrl_c_does_not_wait(hook: InterruptHook, first: signal.Signals) -> None:
    _send(first)
    with pytest.raises(KeyboardInterrupt):
        _send(signal.SIGINT)


def test_a_signal_in_the_last_validation_is_not_lost(hook: InterruptHook, said: pytest.LogCaptureFixture) -> None:
    """There is no step after it, and a test of hours would follow."""
    _take(hook, _step(6))
    hook.after_train(7)  # no signal
    _send(signal.SIGTERM)
    with pytest.raises(Interrupted):
        hook.after_train(7)
    assert said.messages == ["SIGTERM after the last iteration (7), which is saved; test it with --resume"]


def test_schedulers_may_repeat_themselves(hook: InterruptHook) -> None:
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        _send(number)
    with pytest.raises(Interrupted):
        _take(hook, _step(0))


def test_afterwards_signals_mean_what_they_meant(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    hook = _hook(tmp_path)
    hook.before_train(0)
    during = [signal.getsignal(number) for number in SIGNALS]
    hook.close()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert all(handler not in before for handler in during)


def test_in_another_thread_signals_are_left_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    hook = _hook(tmp_path)
    thread = threading.Thread(target=hook.before_train, args=(0,))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) == before
    _take(hook, _step(0))
    hook.close()
