from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import io, read_weights
from engine.checkpoint.publish import publish
from engine.errors import InputError

NAMES = ["破洞", "stain"]
THRESHOLDS = {"iou": 0.5, "beta": 1.0, "classes": {"破洞": {"threshold": 0.1 + 0.2}, "stain": {"threshold": None}}}
CONVENTIONS = {
    "INPUT.PIXEL_MEAN": (103.53, 116.28, 123.675),
    "MODEL.PIXEL_CONVENTION": "continuous",
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0)),
}


def trained() -> dict[str, Any]:
    large = torch.arange(1e5)
    return {
        "format": "engine-1",
        "model": {
            "w": torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).to(
                memory_format=torch.channels_last
            ),
            "view": large[5:9],
            "count": torch.tensor(7),
        },
        "training_model": {"w": torch.zeros(1)},
        "class_names": NAMES,
        "thresholds": THRESHOLDS,
        "conventions": CONVENTIONS,
        "config": "SEED: 1\n",
        "iteration": 3,
        "optimizer": {"state": {0: torch.zeros(1000)}},
        "scaler": {},
        "hooks": {"X": {"best": 1}},
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    io.save(tmp_path / "run" / "model_final.pth", trained())
    return tmp_path / "run" / "model_final.pth"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_kept(source: Path, tmp_path: Path, suffix: str) -> None:
    path = publish(source, tmp_path / "out" / f"my.v2{suffix}")
    assert path.name == f"my.v2-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}{suffix}"
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # no partial file
    content = io.load(path)
    assert set(content) == {"format", "model", "class_names", "thresholds", "config", "conventions"}
    before = trained()
    assert all(torch.equal(content["model"][name], tensor) for name, tensor in before["model"].items())
    assert content["config"] == "SEED: 1\n"
    file = read_weights(path)
    assert (file.class_names, file.thresholds, file.format) == (NAMES, THRESHOLDS, "engine")
    assert file.conventions == CONVENTIONS  # tuples in both formats
    assert path.stat().st_size < 10_000  # the view is written without the 400 kB behind it


def test_the_same_content_has_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first = publish(source, tmp_path / "a.pth").read_bytes()
    assert publish(source, tmp_path / "a.pth").read_bytes() == first
    again = trained()
    again["iteration"], again["optimizer"] = 9, {}
    io.save(source, again)
    assert publish(source, tmp_path / "b.pth").read_bytes() == first


@pytest.mark.parametrize(
    ("output", "safetensors", "expected"),
    [
        ("folder", False, "folder/model_final-*.pth"),
        ("folder", True, "folder/model_final-*.safetensors"),
        ("x.pth", True, "x-*.safetensors"),
        ("x.safetensors", False, "x-*.safetensors"),
        ("new/x", False, "new/x-*.pth"),
        ("new/", False, "new/model_final-*.pth"),
        ("x.pt", False, "x-*.pt"),
    ],
)
def test_names(source: Path, tmp_path: Path, output: str, safetensors: bool, expected: str) -> None:
    (tmp_path / "folder").mkdir()
    path = publish(source, f"{tmp_path}/{output}", safetensors)
    assert path in tmp_path.glob(expected) and path.is_file()


def test_what_cannot_be_published(source: Path, tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(1)}}, tmp_path / "foreign.pth")
    with pytest.raises(InputError, match=r"foreign\.pth: not a checkpoint of this engine; convert it first"):
        publish(tmp_path / "foreign.pth", tmp_path / "out.pth")
    with pytest.raises(InputError, match=r"^.*/model_final\.pth/below_a_file\.pth: cannot be written: [\w ]+$"):
        publish(source, source / "below_a_file.pth")
    assert not list(tmp_path.glob(".*"))
