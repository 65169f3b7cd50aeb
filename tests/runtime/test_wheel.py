"""`engine-runtime` as a user meets it: a wheel in a new environment that has no torch."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.errors import InputError
from engine.export import runtime_wheel
from tests.conftest import made_once
from tests.prepared import clean_environment
from tests.runtime.conftest import write_onnx

REPOSITORY = Path(__file__).resolve().parents[2]
LIBRARIES = ("numpy", "cv2", "onnxruntime", "openvino")
BESIDE = ("numpy.libs", "opencv_python.libs", "opencv_python_headless.libs")
"""Folders of shared libraries that their packages look for beside themselves."""
SECTION = "## Runtime without torch"


def build(folder: Path) -> Path:
    command = [sys.executable, REPOSITORY / "tools/build_runtime.py", "--output-dir", folder]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build", reason="builds a wheel: pip install build")
    return made_once(tmp_path_factory, "runtime_wheel", build)


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of an environment with the wheel and the libraries of this one, but nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel]
    done = subprocess.run(pip, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (site,) = folder.rglob("site-packages")
    for name in LIBRARIES:
        place = importlib.util.find_spec(name)
        if place is not None:
            (package,) = place.submodule_search_locations
            (site / name).symlink_to(package)
            for beside in BESIDE:
                if (shared := Path(package).parent / beside).is_dir() and not (site / beside).exists():
                    (site / beside).symlink_to(shared)
    return python


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported file and an image, to which a process goes."""
    write_onnx(tmp_path / "model.onnx")
    cv2.imwrite(str(tmp_path / "part.jpg"), np.full((40, 60, 3), 255, np.uint8))
    return tmp_path


def run(python: Path, code: str, folder: Path) -> str:
    env = {key: value for key, value in clean_environment().items() if key != "PYTHONPATH"}
    done = subprocess.run([python, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_of_the_documents(python: Path, folder: Path) -> None:
    text = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = re.split(r"\n(?=## )", text[text.index(SECTION) :])[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.S)
    assert len(code.splitlines()) <= 12
    lines = run(python, code, folder).splitlines()
    assert lines == ["hole 0.90 [0, 0, 30, 20]", "stain 0.60 [30, 0, 60, 20]"]
    assert cv2.imread(str(folder / "found.png")).shape == (40, 60, 3)


def test_no_torch_there_and_a_quick_start(python: Path, folder: Path) -> None:
    """Seconds of the CPU, which other processes do not change."""
    code = """if True:
        import importlib.util, sys, time
        from engine.runtime import Detector
        detector = Detector("model.onnx", threads=1)
        print(time.process_time())
        assert not [name for name in ("torch", "torchvision", "fvcore", "yacs") if importlib.util.find_spec(name)]
        assert "openvino" not in sys.modules
        from engine.data.crops import crops
        from engine.data.results import to_dict
        found = detector("part.jpg")
        print(to_dict(found, detector.class_names)["size"], len(crops(detector.pixels("part.jpg"), found)))
    """
    seconds, result = run(python, code, folder).splitlines()
    assert float(seconds) < 0.5
    assert result == "[40, 60] 2"


def test_what_the_wheel_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("engine/")]
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    assert {"engine/runtime/detector.py", "engine/layers/voting.py", "engine/data/tiles.py"} <= set(names)
    assert all(name.endswith(".py") for name in names)
    needed = [line.split(":")[1].strip() for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    assert sorted(re.split(r"[>=]", line)[0] for line in needed) == [
        "numpy",
        "onnxruntime",
        "opencv-python",
        "openvino",
    ]
    assert [line for line in needed if "extra" in line and "openvino" in line]


def test_a_module_that_needs_torch_is_refused() -> None:
    with pytest.raises(InputError, match=r"nms.py imports 'torch"):
        runtime_wheel.runtime_modules(["layers/nms.py"])
