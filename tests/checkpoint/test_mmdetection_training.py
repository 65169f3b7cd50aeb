"""Checkpoints written by mmdetection's trainers: log curves and class names next to the weights."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoint import read_weights


class HistoryBuffer:
    """The object that mmengine pickles: its attributes are a number and two arrays."""

    def __init__(self) -> None:
        self.max_length, self._log_history, self._count_history = 10, np.arange(3.0), np.ones(3, np.int64)


@pytest.fixture
def as_mmengine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickle `HistoryBuffer` under its original name."""
    name = "mmengine.logging.history_buffer"
    module = types.ModuleType(name)
    module.HistoryBuffer = HistoryBuffer
    for package in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(HistoryBuffer, "__module__", name)


def _content(num_rows: int, meta: dict) -> dict:
    tensors = {
        "neck.lateral_convs.0.conv.weight": torch.zeros(4, 4, 1, 1),
        "roi_head.bbox_head.fc_cls.weight": torch.zeros(num_rows, 4),
        "roi_head.bbox_head.fc_cls.bias": torch.zeros(num_rows),
    }
    return {"state_dict": tensors, "meta": meta}


def test_curves_of_the_log_are_dropped(tmp_path: Path, as_mmengine: None) -> None:
    content = _content(3, {"dataset_meta": {"classes": ("crack", "dent")}, "epoch": 12})
    torch.save({**content, "message_hub": {"log_scalars": {"train/loss": HistoryBuffer()}}}, tmp_path / "epoch_12.pth")
    file = read_weights(tmp_path / "epoch_12.pth")
    assert file.format == "mmdetection" and file.class_names == ["crack", "dent"] and len(file.tensors) == 3


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"CLASSES": ["crack", "dent"]}, ["crack", "dent"]),
        ({"dataset_meta": {"CLASSES": ("crack", "dent")}}, ["crack", "dent"]),
        ({"CLASSES": ["one", "too", "many"]}, None),
        ({"CLASSES": ["crack", 2]}, None),
        ({"dataset_meta": None}, None),
        ("no dictionary", None),
    ],
)
def test_class_names(tmp_path: Path, meta: dict, names: list[str] | None) -> None:
    torch.save(_content(3, meta), tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").class_names == names
