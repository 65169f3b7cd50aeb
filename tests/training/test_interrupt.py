"""The effect of a signal on a training, tested with real signals to this process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoint import Checkpointer, io
from engine.errors import SIGNALS, Interrupted
from engine.signals import SignalWatch, nothing_to_save
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


# ---------------------------------------------------------------- in a command


@pytest.fixture
def watch() -> Iterator[SignalWatch]:
    with SignalWatch(nothing_to_save("before")) as watch:
        yield watch


def test_an_unfinished_step_is_not_in_the_checkpoint(watch: SignalWatch, tmp_path: Path) -> None:
    """Its forward pass has changed the running statistics; the thread of the watch saves."""
    hook = _hook(tmp_path)
    hook.before_train(0)
    hook.run.model(torch.rand(2, 1, 3, 3))
    _take(hook, _step(0))
    expected = {name: buffer.clone() for name, buffer in hook.run.model.named_buffers()}
    hook.run.model(torch.rand(2, 1, 3, 3))
    line, code = watch.answer.end(signal.SIGTERM)
    path = tmp_path / "model_0000001.pth"
    assert (line, code) == (f"SIGTERM at iteration 1: saved in {path}; continue with --resume", 75)
    saved = io.load(path)
    assert saved["iteration"] == 1 and saved["model"]["num_batches_tracked"] == 1
    assert all(torch.equal(saved["model"][name], value) for name, value in expected.items())
    hook.close()


def test_nothing_changes_once_the_thread_has_saved(watch: SignalWatch, tmp_path: Path) -> None:
    hook = _hook(tmp_path)
    hook.before_train(3)
    watch.answer.end(signal.SIGTERM)
    assert io.load(tmp_path / "model_0000003.pth")["iteration"] == 3
    trains = threading.Thread(target=hook.before_update, daemon=True)
    trains.start()
    trains.join(0.3)
    assert trains.is_alive()
    hook.close()


def test_the_thread_waits_for_the_hooks_to_finish(watch: SignalWatch, tmp_path: Path) -> None:
    hook = _hook(tmp_path)
    hook.before_train(0)
    hook.before_update()
    lines: list[str] = []
    thread = threading.Thread(target=lambda: lines.append(watch.answer.end(signal.SIGTERM)[0]))
    thread.start()
    thread.join(0.3)
    assert thread.is_alive() and not list(tmp_path.iterdir())
    hook.after_step(_step(0))
    thread.join()
    assert lines[0].startswith("SIGTERM at iteration 1: saved") and hook.done == 1
    hook.close()


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_a_step_that_does_not_end(
    watch: SignalWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_checkpoint: bool
) -> None:
    """A user's hook that hangs: the weights are ahead of the hooks, so nothing is saved."""
    monkeypatch.setattr("engine.training.interrupt.PATIENCE_SECONDS", 0.1)
    hook = _hook(tmp_path)
    if has_checkpoint:
        hook.checkpointer.save("model_0000005", {"model": {}})
    hook.before_train(7)
    hook.before_update()
    outcomes: list[tuple[str, int]] = []
    thread = threading.Thread(target=lambda: outcomes.append(watch.answer.end(signal.SIGTERM)))
    thread.start()
    thread.join()
    ((line, code),) = outcomes
    assert "in the middle of iteration 8" in line
    assert code == (75 if has_checkpoint else 130) and ("model_0000005.pth" in line) == has_checkpoint
    assert not (tmp_path / "model_0000007.pth").exists()
    hook.close()


def test_a_training_that_ends_in_time_is_left_alone(
    watch: SignalWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not for ever: a tracker or another process may keep it from ending."""
    monkeypatch.setattr("engine.training.interrupt.CLOSING_SECONDS", 0.5)
    before = watch.answer
    hook = _hook(tmp_path)
    hook.before_train(0)
    hook.received = signal.SIGTERM
    with pytest.raises(Interrupted):
        _take(hook, _step(0))
    began = time.monotonic()
    assert watch.is_saved and watch.answer.end(signal.SIGTERM) == ("", 75)
    assert time.monotonic() - began >= 0.5
    hook.close()
    assert watch.answer.end(signal.SIGTERM) == ("", 75)

    other = _hook(tmp_path)
    watch.answer = before
    other.before_train(0)
    assert watch.answer is not before
    other.close()
    assert watch.answer is before


def test_a_lost_process_does_not_speak_before_the_thread_that_saves(
    watch: SignalWatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the watch ends this process; meanwhile the main thread notices that another one has ended."""
    monkeypatch.setattr("engine.training.interrupt.CLOSING_SECONDS", 0.5)
    hook = _hook(tmp_path)
    hook.before_train(0)
    assert watch.answer.end(signal.SIGTERM)[0].startswith("SIGTERM at iteration 0: saved")
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="closed by peer"), closing(hook):
        raise RuntimeError("connection closed by peer")
    assert time.monotonic() - began >= 0.5
