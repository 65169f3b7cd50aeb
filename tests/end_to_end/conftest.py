"""Real commands as subprocesses on a tiny generated data set; what is slow runs once a session."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import made_once
from tests.prepared import clean_environment, prepared_process

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 5.0 if "PYTEST_XDIST_WORKER" not in os.environ else 10.0
"""Seconds in which a command must end after a signal, on CPUs of its own: 5."""
TIMEOUT = 240  # seconds; far more than any of these needs, far less than a hanging process would take

CONFIG = """\
MODEL:
  DEVICE: cpu
  WEIGHT: ""
  RPN_ONLY: True
  ATSS_ON: True
  PIXEL_CONVENTION: continuous
  BACKBONE: {CONV_BODY: R-18-FPN-RETINANET, FREEZE_CONV_BODY_AT: 0}
  RESNETS: {NORM: GN, BACKBONE_OUT_CHANNELS: 32}
  RETINANET: {USE_C5: False}
  ATSS: {NUM_CLASSES: 0, NUM_CONVS: 1, PRIOR_PROB: 0.1, PRE_NMS_TOP_N: 50}
DATASETS:
  CATALOG:
    fabric_train: {img_dir: train, ann_file: annotations/instances_train.json}
    fabric_val: {img_dir: val, ann_file: annotations/instances_val.json}
  TRAIN: ("fabric_train",)
  TEST: ("fabric_val",)
INPUT:
  MIN_SIZE_TRAIN: (96,)
  MAX_SIZE_TRAIN: 128
  MIN_SIZE_TEST: 96
  MAX_SIZE_TEST: 128
DATALOADER: {NUM_WORKERS: 0, SIZE_DIVISIBILITY: 32}
SOLVER:
  BASE_LR: 0.002
  WARMUP_ITERS: 0
  STEPS: (5,)
  IMS_PER_BATCH: 4
  MAX_ITER: 6
  CHECKPOINT_PERIOD: 4
  LOG_PERIOD: 2
TEST: {IMS_PER_BATCH: 1}
SEED: 3
"""

NUM_VAL = 7  # odd: two processes get different numbers of images


def run(
    command: Sequence[str | Path],
    cwd: Path = REPOSITORY,
    env: Mapping[str, str] | None = None,
    fresh: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run `python command...` as a user would, with one thread.

    A script without an environment of its own runs in a fork of a process that has imported torch, unless `fresh`.
    """
    words = list(map(str, command))
    if not (fresh or env) and words[0].endswith(".py") and (prepared := prepared_process()):
        return prepared.run(words, cwd, clean_environment(), TIMEOUT)
    process = start(command, cwd, env)
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except BaseException:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def start(
    command: Sequence[str | Path], cwd: Path = REPOSITORY, env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """As `run` in a fresh process, without waiting for the end."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**clean_environment(), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def several_processes(launcher: str, number: int = 2) -> list[str]:
    """The front of a command that starts it so many times: "launch" or "torchrun"."""
    module = {"launch": "torch.distributed.launch", "torchrun": "torch.distributed.run"}[launcher]
    own_port = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]  # else two test runs at once meet at 29500
    return ["-m", module, f"--nproc_per_node={number}", *own_port]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def free_port() -> int:
    """One that no other test process asks for and that the kernel gives to nobody who connects."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    for port in random.SystemRandom().sample(range(20_000 + 500 * worker, 20_500 + 500 * worker), 500):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("localhost", port))
            return port
    raise AssertionError("no free port")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records in the `metrics.jsonl` of a run, without the summary of its data."""
    return [line for line in read_lines(folder / "metrics.jsonl") if "data" not in line]


def figures_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` without what differs from run to run: times and memory."""
    noise = {"time", "data_time", "eta_seconds", "memory_mb"}
    return [{name: v for name, v in line.items() if name not in noise} for line in read_metrics(folder)]


@dataclass
class World:
    """A folder with a data set and a configuration.

    Attributes:
        root: folder of `train`, `val` and `annotations`.
        config: the YAML file.
    """

    root: Path
    config: Path

    def command(self, script: str, *options: str | Path) -> list[str | Path]:
        """Script and options, its own configuration and root before the KEY VALUE pairs of `options`."""
        flags = [str(option) for option in options]
        first_key = next((i for i, flag in enumerate(flags) if flag.split(".")[0].isupper()), len(flags))
        keys = ["DATASETS.ROOT", str(self.root), *flags[first_key:]]
        return [script, "--config-file", self.config, *flags[:first_key], *keys]

    def train(
        self, *options: str | Path, launcher: str | None = None, fresh: bool = False
    ) -> subprocess.CompletedProcess[str]:
        front = several_processes(launcher) if launcher else []
        return run([*front, *self.command("tools/train_net.py", *options)], fresh=fresh)

    def test(self, *options: str | Path, num_processes: int = 1) -> subprocess.CompletedProcess[str]:
        front = several_processes("torchrun", num_processes) if num_processes > 1 else []
        return run([*front, *self.command("tools/test_net.py", *options)])

    def copy(self, folder: Path) -> World:
        """The same in another folder, for changing it."""
        shutil.copytree(self.root, folder)
        return World(folder, self.config)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return made_once(tmp_path_factory, "end_to_end", _make_world)


def _make_world(folder: Path) -> World:
    root = folder / "fabric"
    size = ["--height", "96", "--width", "128"]
    done = run(["datasets/generate_fabric.py", "--output", root, "--train", "12", "--val", str(NUM_VAL), *size])
    assert done.returncode == 0, done.stderr
    config = root.parent / "tiny.yaml"
    config.write_text(CONFIG)
    return World(root, config)


@dataclass
class Trained:
    """A finished run of `train_net.py`."""

    folder: Path
    output: str
    errors: str

    @property
    def model(self) -> Path:
        return self.folder / "model_final.pth"

    @property
    def inference(self) -> Path:
        return self.folder / "inference" / "fabric_val"


def train_into(
    world: World, folder: Path, *options: str | Path, launcher: str | None = None, fresh: bool = False
) -> Trained:
    done = world.train(*options, "OUTPUT_DIR", folder, launcher=launcher, fresh=fresh)
    assert done.returncode == 0, done.stdout + done.stderr
    return Trained(folder, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Six iterations of one process, tested."""
    return made_once(tmp_path_factory, "trained", lambda folder: train_into(world, folder / "run", fresh=True))
