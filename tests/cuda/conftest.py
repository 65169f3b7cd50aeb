"""Real commands on the GPU, on the tiny data set of the end-to-end tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.cuda.device import DEVICE, ON_GPU
from tests.end_to_end.conftest import CONFIG, NUM_VAL, Trained, World, run

ENV = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
"""The machine of the checks may have no installed packages of its own; `run` hides PYTHONPATH from commands."""


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """TensorFloat-32 has three decimal digits; the CPU has seven."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The data set and configuration of the end-to-end tests, with the default `MODEL.DEVICE`."""
    root = tmp_path_factory.mktemp("cuda") / "fabric"
    size = ["--height", "96", "--width", "128", "--train", "12", "--val", str(NUM_VAL)]
    done = run(["datasets/generate_fabric.py", "--output", root, *size], env=ENV)
    assert done.returncode == 0, done.stderr
    config = root.parent / "tiny.yaml"
    config.write_text(CONFIG.replace("  DEVICE: cpu\n", "" if ON_GPU else f"  DEVICE: {DEVICE}\n"))
    return World(root, config)


def command(world: World, script: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    return run(world.command(script, *options), env=ENV)


def train(world: World, folder: Path, *options: str | Path) -> Trained:
    """A run of `train_net.py` that must succeed and say nothing on stderr."""
    done = command(world, "tools/train_net.py", *options, "OUTPUT_DIR", folder)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    return Trained(folder, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Forty iterations, so that scores differ; tested."""
    keys = ["SOLVER.MAX_ITER", "40", "SOLVER.STEPS", "(30,)", "SOLVER.CHECKPOINT_PERIOD", "0"]
    return train(world, tmp_path_factory.mktemp("trained") / "run", *keys)
