"""Real commands on the GPU, on the tiny data set of the end-to-end tests; each outcome is printed at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import made_once
from tests.cuda.device import DEVICE, ON_GPU
from tests.end_to_end.conftest import CONFIG, NUM_VAL, Trained, World, run


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the process that prints: a lent machine may be taken away before pytest's own summary."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    if "tests/cuda/" not in report.nodeid or not (report.failed or (report.when == "call" and ON_GPU)):
        return
    print(f"\n{report.outcome} {report.duration:.1f} s {report.when} {report.nodeid}", file=sys.__stderr__)
    if report.failed:
        lines = str(report.longrepr).splitlines()
        print("\n".join(lines[-60:]), file=sys.__stderr__, flush=True)


@pytest.fixture(autouse=True)
def full_float32() -> Iterator[None]:
    """TensorFloat-32 has three decimal digits; the CPU has seven."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _make_world(folder: Path) -> World:
    root = folder / "fabric"
    size = ["--height", "96", "--width", "128", "--train", "12", "--val", str(NUM_VAL)]
    done = run(["datasets/generate_fabric.py", "--output", root, *size])
    assert done.returncode == 0, done.stderr
    config = folder / "tiny.yaml"
    config.write_text(CONFIG.replace("  DEVICE: cpu\n", "" if ON_GPU else f"  DEVICE: {DEVICE}\n"))
    return World(root, config)


@pytest.fixture(scope="session")
def gpu_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The data set and configuration of the end-to-end tests, with the default `MODEL.DEVICE`."""
    return made_once(tmp_path_factory, "cuda", _make_world)


def command(world: World, script: str, *options: str | Path) -> subprocess.CompletedProcess[str]:
    return run(world.command(script, *options))


def train(world: World, folder: Path, *options: str | Path) -> Trained:
    """A run of `train_net.py` that must succeed and say nothing on stderr."""
    done = command(world, "tools/train_net.py", *options, "OUTPUT_DIR", folder)
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    return Trained(folder, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def gpu_trained(gpu_world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Forty iterations in float32, so that scores differ; tested. Two workers, whose batches are pinned in memory."""
    keys = ["SOLVER.MAX_ITER", "40", "SOLVER.STEPS", "(30,)", "SOLVER.CHECKPOINT_PERIOD", "0"]
    keys += ["DATALOADER.NUM_WORKERS", "2"]
    return made_once(tmp_path_factory, "cuda_trained", lambda folder: train(gpu_world, folder / "run", *keys))
