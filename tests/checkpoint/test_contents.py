"""What a checkpoint must not hold: one line that names the file and the place in it."""

from __future__ import annotations

import io as stream
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.checkpoint import contents, io
from engine.errors import InputError


def own(**others: Any) -> dict[str, Any]:
    return {"format": "engine-1", "model": {"w": torch.ones(2)}, **others}


def message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        io.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.eye(3).to_sparse(), "sparse, quantized or without numbers"),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "sparse, quantized or without numbers"),
        (torch.empty(2, device="meta"), "sparse, quantized or without numbers"),
        (torch.zeros(2, dtype=torch.complex64), "of type complex64"),
        (torch.zeros(2).to(torch.float8_e5m2), "of type float8_e5m2"),
        (torch.zeros(1).expand(10**6, 10**6), "a view that repeats its numbers to 4000.0 GB"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_strange_tensors(tmp_path: Path, tensor: torch.Tensor, words: str) -> None:
    torch.save({"a": [{"b": tensor}]}, tmp_path / "w.pth")
    assert f"a.0.b is {words}" in message(tmp_path / "w.pth")


def test_plain_tensors_pass() -> None:
    large = torch.arange(100.0)
    plain = {
        "view": large[5:9],
        "expanded": torch.ones(1).expand(1000),
        "t": torch.ones(2, 3).t(),
        "n": torch.tensor(7),
    }
    assert contents.fault({**plain, "half": large.half(), "mask": large > 3, "none": torch.ones(0)}, False) is None


def test_content_that_holds_itself() -> None:
    circle: dict[str, Any] = {"w": torch.ones(1)}
    circle["again"] = [circle]
    assert [name for name, _ in contents.tensors_in(circle)] == ["w"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", {"w": "text"}),
        ("model", {1: torch.ones(2)}),
        ("model", ["w"]),
        ("training_model", {"w": 1.0}),
        ("class_names", "hole"),
        ("class_names", ["hole", "hole"]),
        ("class_names", ["hole", 1]),
        ("class_names", ["\ud83d"]),
        ("thresholds", [0.5]),
        ("thresholds", {"classes": {"hole": 0.5}}),
        ("thresholds", {"classes": {"hole": {}}}),
        ("thresholds", {"classes": {"hole": {"threshold": float("nan")}}}),
        ("conventions", {"SEED": {}}),
        ("conventions", {"SEED": torch.ones(2)}),
        ("conventions", "SEED"),
        ("config", {"SEED": 1}),
        ("iteration", -1),
        ("iteration", "3"),
        ("iteration", True),
        ("ema_updates", 0.5),
        ("optimizer_name", 1),
        ("parameter_names", [1]),
        ("optimizer", [1]),
        ("scaler", 1),
        ("hooks", {"LogHook": 1}),
    ],
)
def test_our_keys(tmp_path: Path, key: str, value: Any) -> None:
    torch.save(own(**{key: value}), tmp_path / "w.pth")
    assert f"w.pth: its {key} must be " in message(tmp_path / "w.pth")
    foreign = {**own(**{key: value}), "format": "other"}
    assert contents.fault(foreign, is_ours=False) is None


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"class_names": [], "thresholds": None, "conventions": {}},
        {"class_names": ("破洞", "a b"), "thresholds": {"iou": 0.5, "classes": {"破洞": {"threshold": None}}}},
        {"conventions": {"MODEL.X": ((1.0, 2.0), (3.0, 4.0))}, "iteration": 0, "hooks": {"LogHook": {}}},
    ],
)
def test_our_keys_as_we_write_them(others: dict[str, Any]) -> None:
    assert contents.fault(own(**others), is_ours=True) is None


def test_packed_archive(tmp_path: Path) -> None:
    """With `mmap` torch would take the packed bytes for numbers."""
    buffer = stream.BytesIO()
    torch.save({"w": torch.zeros(1000)}, buffer)
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert "its entries are compressed" in message(tmp_path / "w.pth")


def test_arrays_deep_in_a_pickle_become_tensors(tmp_path: Path) -> None:
    content = {"a": {"b": {"c": [np.arange(3.0), (np.ones(1), 7)]}}}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=2))
    found = io.load(tmp_path / "w.pkl")["a"]["b"]["c"]
    assert torch.equal(found[0], torch.arange(3.0).double()) and torch.equal(found[1][0], torch.ones(1).double())
    assert found[1][1] == 7


def test_pickle_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"w": np.ones(2)}
    content["again"] = content
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol=2))
    found = io.load(tmp_path / "w.pkl")
    assert found["again"] is found and torch.equal(found["w"], torch.ones(2).double())
