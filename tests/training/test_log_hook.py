from __future__ import annotations

import json
import logging
import mmap
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.errors import InputError
from engine.training.hooks import Run
from engine.training.log_hook import LogHook, memory_mb
from engine.training.loop import Step
from engine.training.writers import Record, Writer


class Recorder(Writer):
    """Records its calls."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[Any] = []
        self.fails = fails

    def open(self, start: int) -> None:
        if self.fails:
            raise InputError("no such tracker")
        self.calls.append(("open", start))

    def write(self, record: Record) -> None:
        self.calls.append(record)

    def close(self) -> None:
        self.calls.append("close")


def _run(folder: Path, max_iter: int) -> Run:
    model = nn.Linear(1, 1)
    return Run(model, torch.optim.SGD(model.parameters(), 0.1), folder, max_iter)


def _step(iteration: int, loss: float = 1.0, skipped: list[str] | None = None) -> Step:
    losses = {"loss_cls": torch.tensor(loss), "loss_reg": torch.tensor(2.0)}
    return Step(iteration, losses, torch.tensor(4.0), 0.1, 0.5, 2.0, [7], skipped or [])


def _take(hook: LogHook, step: Step) -> None:
    hook.after_step(step)
    hook.settle()


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_steps_of_a_period_are_averaged(tmp_path: Path) -> None:
    hook = LogHook(_run(tmp_path, 5), period=2)
    hook.before_train(0)
    for iteration, loss in enumerate([1.0, 3.0, 5.0, 5.0, 9.0]):
        _take(hook, _step(iteration, loss))
    hook.close()
    lines = _lines(tmp_path)
    assert [(line["iteration"], line["loss_cls"], line["loss"]) for line in lines] == [(2, 2, 4), (4, 5, 7), (5, 9, 11)]
    assert lines[0]["time"] == 2.0 and lines[0]["data_time"] == 0.5 and lines[0]["lr"] == 0.1
    assert [line["eta_seconds"] for line in lines] == [6, 2, 0]
    assert "skipped_images" not in lines[0] and lines[0]["grad_norm"] == 4.0


def test_writers_are_opened_fed_and_closed(tmp_path: Path) -> None:
    recorder = Recorder()
    hook = LogHook(_run(tmp_path, 4), 1, [recorder])
    hook.before_train(2)
    _take(hook, replace(_step(2), grad_norm=torch.tensor(float("inf"))))
    hook.write({"iteration": 3, "val/AP": 0.5, "val/loss": float("nan")})
    hook.close()
    opened, of_training, of_validation, closed = recorder.calls
    assert (opened, closed) == (("open", 2), "close")
    assert of_training["grad_norm"] is None and of_training["loss"] == 3.0 and of_training["iteration"] == 3
    assert of_validation == {"iteration": 3, "val/AP": 0.5, "val/loss": None}
    assert _lines(tmp_path) == [of_training, of_validation]


def test_a_tracker_that_fails_later_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Away(Recorder):
        def write(self, record: Record) -> None:
            raise ConnectionError("no route to host\nand more")

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    recorder = Recorder()
    hook = LogHook(_run(tmp_path, 4), 1, [Away(), recorder])
    hook.before_train(0)
    logging.getLogger("engine").propagate = True
    with caplog.at_level(logging.WARNING, logger="engine"):
        for iteration in range(2):
            _take(hook, _step(iteration))
        hook.close()
    assert caplog.messages == ["Away failed to record metrics and may miss more: no route to host"]
    assert len(_lines(tmp_path)) == 2 and len(recorder.calls) == 4


def test_a_training_that_ends_within_a_period_logs_its_last_steps(tmp_path: Path) -> None:
    hook = LogHook(_run(tmp_path, 9), period=3)
    hook.before_train(0)
    for iteration in range(5):
        _take(hook, _step(iteration))
    hook.after_train(5)
    hook.close()
    assert [line["iteration"] for line in _lines(tmp_path)] == [3, 5]


def test_a_writer_that_does_not_open_is_not_closed_and_the_others_are(tmp_path: Path) -> None:
    before, failing, after = Recorder(), Recorder(fails=True), Recorder()
    hook = LogHook(_run(tmp_path, 4), 1, [before, failing, after])
    with pytest.raises(InputError, match="no such tracker"):
        hook.before_train(0)
    hook.close()
    assert before.calls == [("open", 0), "close"] and failing.calls == after.calls == []


def test_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.distributed.is_main", lambda: False)
    monkeypatch.setattr("engine.distributed.gather_objects", lambda obj: None)
    recorder = Recorder()
    hook = LogHook(_run(tmp_path, 4), 1, [recorder])
    hook.before_train(0)
    _take(hook, _step(0))
    hook.write({"iteration": 1})
    hook.close()
    assert recorder.calls == [] and list(tmp_path.iterdir()) == []


def test_unreadable_images_are_named_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = LogHook(_run(tmp_path, 3), period=1)
    hook.before_train(0)
    logging.getLogger("engine").propagate = True
    with caplog.at_level(logging.WARNING, logger="engine"):
        for iteration, skipped in enumerate([["a.jpg"], ["a.jpg", "b.jpg"], []]):
            _take(hook, _step(iteration, skipped=skipped))
        hook.after_train(3)
    hook.close()
    assert [line.get("skipped_images") for line in _lines(tmp_path)] == [1, 3, 3]
    named = [record.getMessage() for record in caplog.records]
    assert sum("a.jpg" in line for line in named) == 1 and sum("b.jpg" in line for line in named) == 1
    assert "2 unreadable image(s) were drawn 3 time(s)" in named[-1]


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_a_resumed_run_logs_what_an_uninterrupted_one_does(tmp_path: Path, stop: int) -> None:
    """The last checkpoint was saved after `stop` steps, the process was killed one step later."""
    steps = [_step(i, loss, [f"{i}.jpg"] * (i % 2)) for i, loss in enumerate([0.1, 0.7, 5.0, 5.3, 9.0, 2.0])]

    def train(folder: Path, first: int, last: int, state: dict[str, Any]) -> dict[str, Any]:
        hook = LogHook(_run(folder, 6), period=3)
        if state:
            hook.load_state_dict(state)
        hook.before_train(first)
        state = {}
        for step in steps[first:last]:
            _take(hook, step)
            if step.iteration + 1 == stop:
                state = hook.state_dict()
        hook.close()
        return state

    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    train(tmp_path / "whole", 0, 6, {})
    state = train(tmp_path / "resumed", 0, stop + 1, {})
    assert all(isinstance(total, float) for total in state.get("sums", {}).values())
    train(tmp_path / "resumed", stop, 6, state)

    def figures(name: str) -> list[dict]:
        return [{k: v for k, v in line.items() if k != "memory_mb"} for line in _lines(tmp_path / name)]

    assert figures("resumed") == figures("whole") and len(figures("whole")) == 2
    assert figures("whole")[1]["skipped_images"] == 3


def test_memory_is_this_process_s() -> None:
    before = memory_mb(torch.device("cpu"))
    with mmap.mmap(-1, 64 << 20) as ballast:  # new pages; an allocator may reuse memory of earlier tests
        for _ in range(64):
            ballast.write(b"x" * (1 << 20))
        grown = memory_mb(torch.device("cpu")) - before
    assert 10 < before < 100_000 and 60 <= grown <= 80


def test_a_record_that_was_due_is_written_by_the_resumed_run(tmp_path: Path) -> None:
    """The checkpoint was saved while the main process waited for the figures of another one."""
    whole = LogHook(_run(tmp_path / "whole", 4), period=2)
    first, second = (LogHook(_run(tmp_path / "parts", 4), period=2) for _ in range(2))
    for folder in ("whole", "parts"):
        (tmp_path / folder).mkdir()
    for hook in (whole, first):
        hook.before_train(0)
        _take(hook, _step(0, 1.0))
        hook.after_step(_step(1, 3.0))
    whole.settle()
    state = first.state_dict()
    first.close()
    assert _lines(tmp_path / "parts") == []
    second.load_state_dict(state)
    second.before_train(2)
    second.settle()
    for hook in (whole, second):
        _take(hook, _step(2, 7.0))
        _take(hook, _step(3, 9.0))
        hook.close()
    lines = _lines(tmp_path / "parts")
    assert [line["loss_cls"] for line in lines] == [2.0, 8.0]
    noise = {"memory_mb"}
    assert [{k: v for k, v in line.items() if k not in noise} for line in lines] == [
        {k: v for k, v in line.items() if k not in noise} for line in _lines(tmp_path / "whole")
    ]


def test_a_checkpoint_has_the_sums_or_the_record(tmp_path: Path) -> None:
    """While another thread may save, metrics.jsonl is not written; a tracker, which may block, is at work only then."""
    held: dict[str, bool] = {}

    class Watching(Recorder):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def write(self, record: Record) -> None:
            def look() -> None:
                held[self.name] = not run.changing.acquire(blocking=False)

            thread = threading.Thread(target=look)
            thread.start()
            thread.join()

    run = _run(tmp_path, 4)
    hook = LogHook(run, 1, [Watching("tracker")])
    hook.writers.append(Watching("file"))
    hook.before_train(0)
    _take(hook, _step(0))
    hook.close()
    assert held == {"file": True, "tracker": False}


def test_what_a_tracker_has_not_seen_is_in_the_checkpoint(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    first, tracker = LogHook(_run(tmp_path / "a", 4), 1), Recorder()
    first.before_train(0)
    first.write({"iteration": 1, "loss": 0.5})
    again = LogHook(_run(tmp_path / "b", 4), 1, [tracker])
    again.load_state_dict(first.state_dict())
    again.before_train(1)
    again.settle()
    assert {"iteration": 1, "loss": 0.5} in tracker.calls and not again.pending
    for hook in (first, again):
        hook.close()
