from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from engine.checkpoint import Checkpointer, io
from engine.training.hooks import CheckpointHook, Run
from engine.training.loop import Step


def _step(iteration: int) -> Step:
    return Step(iteration, {"loss_cls": torch.tensor(1.0)}, torch.ones(()), 0.1, 0.5, 2.0, [7])


def _run(folder: Path) -> Run:
    model = nn.Linear(1, 1)
    return Run(model, torch.optim.SGD(model.parameters(), 0.1), folder, 9)


def test_checkpoints_at_their_periods(tmp_path: Path) -> None:
    hook = CheckpointHook(
        _run(tmp_path), Checkpointer(tmp_path), lambda done: {"model": {}, "iteration": done}, period=2
    )
    for iteration in range(5):
        hook.after_step(_step(iteration))
        hook.settle()
    hook.after_train(5)
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "model_0000002.pth",
        "model_0000004.pth",
        "model_final.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_what_is_final_is_written_again_after_a_step_only(tmp_path: Path) -> None:
    hook = CheckpointHook(
        _run(tmp_path), Checkpointer(tmp_path), lambda done: {"iteration": done}, period=0, is_final=True
    )
    hook.after_train(5)
    assert not (tmp_path / "model_final.pth").exists()
    hook.after_step(_step(5))
    hook.after_train(6)
    assert io.load(tmp_path / "model_final.pth")["iteration"] == 6
