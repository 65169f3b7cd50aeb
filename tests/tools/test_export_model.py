"""tools/export_model.py: a file with its card, tried at once, or one line that says why not."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.assembly.model import build_model
from engine.checkpoint import io
from engine.config import load_config
from engine.errors import InputError
from tests.configurations import NARROW

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools/export_model.py"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of two classes with a threshold, its configuration, and two images."""
    folder = tmp_path_factory.mktemp("run")
    lines = [f"_BASE_: {ROOT / 'configs/bccd/atss_R_18_bccd.yaml'}"]
    config = folder / "small.yaml"
    config.write_text("\n".join(lines))
    opts = [word for pair in ({**NARROW, "MODEL.ATSS.NUM_CLASSES": "3"}).items() for word in pair]
    cfg = load_config(config, opts)
    config.write_text(cfg.dump())
    torch.manual_seed(0)
    model = build_model(cfg)
    torch.nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.3)
    thresholds = {"classes": {"hole": {"threshold": 0.25}, "scratch": {"threshold": None}}}
    state = {"format": "engine-1", "model": model.state_dict(), "class_names": ["hole", "scratch"]}
    io.save(folder / "model.pth", {**state, "thresholds": thresholds})
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        cv2.imwrite(str(folder / f"images/{number}.png"), rng.integers(0, 256, (70, 90, 3), np.uint8))
    return folder


def test_the_command_writes_a_file_with_its_card(run_folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    command = ["--config-file", run_folder / "small.yaml", "--weights", run_folder / "model.pth"]
    command += ["--output", run_folder / "line.onnx", "--image-size", "70", "90", "--batch", "1"]
    command += ["--images", run_folder / "images", "INPUT.MIN_SIZE_TEST", "96"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=run_folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "equal detections" in done.stdout + done.stderr
    model = onnx.load(str(run_folder / "line.onnx"))
    card = json.loads({entry.key: entry.value for entry in model.metadata_props}["engine"])
    assert card["class_names"] == ["hole", "scratch"] and card["thresholds"] == pytest.approx({"hole": 0.25}, abs=3e-5)
    assert card["images"]["min_size"] == 96 and card["shape"] == {
        "batch_size": 1,
        "input_size": None,
        "image_size": [70, 90],
    }
    assert len(card["facts"]["sha256"]) == 64
    assert not list(run_folder.glob(".*")), "nothing else is left"


def run(folder: Path, *words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["--config-file", str(folder / "small.yaml"), "--weights", str(folder / "model.pth")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *given, *words])
    runpy.run_path(str(SCRIPT))["main"]()


BAD = {
    "--output": ["--output", "model.pth"],
    "--output {folder}": ["--output", "{folder}"],
    "must end in .xml": ["--output", "model.onnx", "--format", "openvino"],
    "use --format openvino": ["--output", "model.onnx", "--precision", "bf16"],
    "remove one of the two": ["--output", "model.onnx", "--dynamic", "--batch", "2"],
    "at least 1": ["--output", "model.onnx", "--batch", "0"],
    "--input-size: numbers": ["--output", "model.onnx", "--input-size", "0", "32"],
    "exclude each other": ["--output", "model.onnx", "--input-size", "64", "64", "--image-size", "64", "64"],
    "--max-drop": ["--output", "model.onnx", "--max-drop", "2"],
    "no such folder": ["--output", "model.onnx", "--images", "nowhere"],
    "holds no images": ["--output", "model.onnx", "--images", "{folder}"],
    "TEST.BBOX_AUG.ENABLED": ["--output", "model.onnx", "TEST.BBOX_AUG.ENABLED", "True"],
    "unknown key": ["--output", "model.onnx", "TEST.NONSENSE", "1"],
    "--input-size H W --batch N": ["--output", "new/folder/model.ts"],
    "nowhere.pth": ["--output", "new/folder/model.onnx", "--weights", "nowhere.pth"],
    "damaged": ["--output", "new/folder/model.onnx", "--weights", "{folder}.pth"],
    "at least 10 real images": ["--output", "new/model.xml", "--precision", "int8", "--images", "{run}/images"],
    "cannot be written": ["--output", "{run}/model.pth/model.onnx"],
}


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    words: str, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.with_name(f"{tmp_path.name}.pth").write_bytes((run_folder / "model.pth").read_bytes()[:100_000])
    arguments = [word.format(folder=tmp_path, run=run_folder) for word in BAD[words]]
    with pytest.raises(InputError) as caught:
        run(run_folder, *arguments, monkeypatch=monkeypatch)
    message = str(caught.value)
    assert words.format(folder=tmp_path) in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code",
    [
        "from engine import export",
        "import engine.export.precision; from engine import export",
        "import engine; export = engine.export; import engine.export.precision",
        "from engine import export; import engine.export.precision; export = __import__('engine').export",
    ],
)
def test_export_is_a_function_whatever_is_imported_first(code: str) -> None:
    check = f"{code}; import engine; assert callable(export) and export is engine.export and engine.export.precision"
    check = check if "precision" in code else check.replace(" and engine.export.precision", "")
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)
