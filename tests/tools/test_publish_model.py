from __future__ import annotations

import hashlib
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.checkpoint import io
from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools/publish_model.py"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    state = {"format": "engine-1", "model": {"w": torch.ones(3)}, "class_names": ["破洞"], "thresholds": None}
    io.save(tmp_path / "model_final.pth", {**state, "optimizer": {"state": {0: torch.zeros(50_000)}}})
    return tmp_path / "model_final.pth"


def test_a_command(source: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, source, source.parent / "mine.pth", "--safetensors"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = source.parent.glob("mine-*.safetensors")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.name == f"mine-{digest[:8]}.safetensors"
    assert done.stdout.splitlines() == [
        f"{source}: 0.2 MB; published: 0.0 MB",
        "classes: 破洞",
        "score thresholds: none; tools/test_net.py --write-thresholds stores them in IN",
        f"SHA-256: {digest}",
        f"written to {path}",
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.pth: no such file"):
        runpy.run_path(str(SCRIPT))["main"]([str(tmp_path / "nothing.pth"), str(tmp_path / "out.pth")])
