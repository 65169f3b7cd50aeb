"""The package `engine-runtime`: the modules of this engine that detection from an exported file needs, and no others.

They are found by following imports, so that the package holds all that it needs, today and after any change.
"""

from __future__ import annotations

import ast
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.errors import InputError, listed

FOLDER = Path(__file__).resolve().parents[1]
"""Of the package `engine`."""
ROOTS = ("runtime", "data/results.py", "data/crops.py")
"""What users of the package import: folders and files of `engine`."""
ALLOWED = {"numpy", "cv2"}
"""Packages that its modules may import when they are imported; ONNX Runtime and OpenVINO are when a file needs them."""
_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "engine-runtime"
version = "{version}"
description = "Detection from exported ONNX and OpenVINO files, without torch"
requires-python = ">=3.10"
license = "MIT"
dependencies = ["numpy>=1.24", "opencv-python>=4.8", "onnxruntime>=1.20"]

[project.optional-dependencies]
openvino = ["openvino>=2025.0"]

[tool.setuptools.packages.find]
include = ["engine", "engine.*"]
"""


def build_wheel(output_dir: Path, version: str) -> Path:
    """Build `engine_runtime-VERSION-py3-none-any.whl` into a folder.

    Raises:
        InputError: the package `build` is not installed or fails.
    """
    if importlib.util.find_spec("build") is None:
        raise InputError("building a wheel needs the package build: pip install build")
    with tempfile.TemporaryDirectory() as folder:
        for path in runtime_modules():
            place = Path(folder, "engine", path.relative_to(FOLDER))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        Path(folder, "pyproject.toml").write_text(_PROJECT.format(version=version), encoding="utf-8")
        has_setuptools = importlib.util.find_spec("setuptools") is not None  # else `build` fetches it
        options = ["--no-isolation"] if has_setuptools else []
        command = [sys.executable, "-m", "build", "--wheel", *options, "--outdir", str(output_dir.absolute()), folder]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
            raise InputError(f"the wheel cannot be built: {reason[-1]}")
    return output_dir / f"engine_runtime-{version}-py3-none-any.whl"


def runtime_modules(roots: Sequence[str] = ROOTS) -> list[Path]:
    """The files of `roots` and of all that they import, with the packages that these lie in.

    Raises:
        InputError: one of them imports what the runtime must do without.
    """
    waiting = [file for root in roots for file in _files(FOLDER / root)]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        waiting += [folder / "__init__.py" for folder in path.parents if folder.is_relative_to(FOLDER)]
        others = set()
        for name in _imports(path):
            if name.split(".")[0] == "engine":
                waiting += _module_files(name)
            elif name.split(".")[0] not in ALLOWED | sys.stdlib_module_names:
                others.add(name)
        if others:
            raise InputError(f"{path} imports {listed(sorted(others))}, which the runtime must do without")
    return sorted(found)


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _module_files(name: str) -> list[Path]:
    """The files of `engine.data.tiles` or of `engine.data.tiles.Tiling`, a name in it."""
    place = FOLDER.joinpath(*name.split(".")[1:])
    candidates = place.with_suffix(".py"), place / "__init__.py", place.parent.with_suffix(".py")
    return [path for path in candidates if place != FOLDER and path.is_file()][:1]


def _imports(path: Path) -> Iterator[str]:
    """Full names of what a module imports when it is imported: not in functions, not for type checkers only."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.Try):  # what may be missing
            waiting += node.finalbody
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
