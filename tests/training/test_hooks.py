from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.checkpoint import Checkpointer
from engine.training.hooks import CheckpointHook, LogHook, drop_metrics_after
from engine.training.loop import Step


def _step(iteration: int, loss: float = 1.0, skipped: list[str] | None = None) -> Step:
    losses = {"loss_cls": torch.tensor(loss), "loss_reg": torch.tensor(2.0)}
    return Step(iteration, losses, 0.1, 0.5, 2.0, [7], skipped or [])


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_steps_of_a_period_are_averaged(tmp_path: Path) -> None:
    hook = LogHook(tmp_path, period=2, max_iter=5)
    hook.before_train(0)
    for iteration, loss in enumerate([1.0, 3.0, 5.0, 5.0, 9.0]):
        hook.after_step(_step(iteration, loss))
    hook.close()
    lines = _lines(tmp_path)
    assert [(line["iteration"], line["loss_cls"], line["loss"]) for line in lines] == [(2, 2, 4), (4, 5, 7), (5, 9, 11)]
    assert lines[0]["time"] == 2.0 and lines[0]["data_time"] == 0.5 and lines[0]["lr"] == 0.1
    assert [line["eta_seconds"] for line in lines] == [6, 2, 0]
    assert "skipped_images" not in lines[0] and "grad_norm" not in lines[0]


def test_what_json_cannot_say_is_null(tmp_path: Path) -> None:
    hook = LogHook(tmp_path, period=1, max_iter=1)
    hook.before_train(0)
    hook.after_step(replace(_step(0), grad_norm=torch.tensor(float("inf"))))
    hook.close()
    assert _lines(tmp_path)[0]["grad_norm"] is None


def test_unreadable_images_are_named_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hook = LogHook(tmp_path, period=1, max_iter=3)
    hook.before_train(0)
    logging.getLogger("engine").propagate = True
    with caplog.at_level(logging.WARNING, logger="engine"):
        for iteration, skipped in enumerate([["a.jpg"], ["a.jpg", "b.jpg"], []]):
            hook.after_step(_step(iteration, skipped=skipped))
        hook.after_train(3)
    hook.close()
    assert [line.get("skipped_images") for line in _lines(tmp_path)] == [1, 3, 3]
    named = [record.getMessage() for record in caplog.records]
    assert sum("a.jpg" in line for line in named) == 1 and sum("b.jpg" in line for line in named) == 1
    assert "2 unreadable image(s) were met 3 time(s)" in named[-1]


def test_lines_to_be_done_again_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    drop_metrics_after(path, 4)  # no file, nothing to do
    assert not path.exists()
    path.write_text("".join(json.dumps({"iteration": i}) + "\n" for i in (2, 4, 6)) + '{"iterat')
    drop_metrics_after(path, 4)
    assert [line["iteration"] for line in _lines(tmp_path)] == [2, 4]
    drop_metrics_after(path, 0)
    assert path.read_text() == ""


def test_checkpoints_at_their_periods(tmp_path: Path) -> None:
    hook = CheckpointHook(Checkpointer(tmp_path), lambda done: {"model": {}, "iteration": done}, period=2)
    for iteration in range(5):
        hook.after_step(_step(iteration))
    hook.after_train(5)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "model_0000002.pth",
        "model_0000004.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
