"""`train_net.py` on the GPU: precisions, resuming, signals, memory."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import Predictor
from engine.assembly.device import build_device
from engine.checkpoint import io
from engine.config import load_config
from engine.errors import InputError
from tests.cuda.conftest import train
from tests.cuda.device import DEVICE, needs_device, needs_gpu
from tests.end_to_end.conftest import Trained, World, figures_of, read_metrics, run, several_processes, start
from tests.end_to_end.test_faults import _assert_equal, _wait_for_iteration
from tests.end_to_end.test_waiting import HANGING

pytestmark = needs_device

CASCADE = ["MODEL.RPN_ONLY", "False", "MODEL.ATSS_ON", "False", "MODEL.BACKBONE.CONV_BODY", "R-18-FPN"]
CASCADE += ["MODEL.RPN.USE_FPN", "True", "MODEL.RPN.ANCHOR_STRIDE", "(4, 8, 16, 32, 64)"]
CASCADE += ["MODEL.ROI_HEADS.USE_FPN", "True", "MODEL.ROI_HEADS.NAME", "CascadeROIHeads"]
CASCADE += ["MODEL.ROI_HEADS.SAMPLER", "ohem", "MODEL.ROI_BOX_HEAD.NUM_CLASSES", "0"]
CASCADE += ["MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPN2MLPFeatureExtractor", "MODEL.CLS_AGNOSTIC_BBOX_REG", "True"]
CASCADE += ["MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNPredictor", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", "7"]
CASCADE += ["MODEL.ROI_BOX_HEAD.POOLER_SCALES", "(0.25, 0.125, 0.0625, 0.03125)"]
CASCADE += ["MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", "32"]
CASCADE += ["MODEL.RESNETS.STAGE_WITH_DCN", "(False, False, True, True)", "MODEL.RESNETS.WITH_MODULATED_DCN", "True"]


def amp(dtype: str) -> list[str]:
    return ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", dtype]


def test_a_run(gpu_trained: Trained) -> None:
    check_run(gpu_trained, [2, 4, 38, 40])
    assert (gpu_trained.inference / "metrics.json").exists()


def check_run(done: Trained, iterations: list[int]) -> None:
    lines = read_metrics(done.folder)
    assert {line["iteration"] for line in lines} >= set(iterations)
    assert all(math.isfinite(line["loss"]) for line in lines)
    state = io.load(done.model)
    assert all(tensor.device.type == "cpu" and tensor.isfinite().all() for tensor in state["model"].values())
    if DEVICE.type == "cuda":
        assert "using the CPU" not in done.output and "SOLVER.AMP is off" not in done.output
        assert all(line["memory_mb"] > 10 for line in lines)


def whole_and_resumed(world: World, folder: Path, *keys: str) -> tuple[Trained, Trained]:
    """Six iterations, and the last two of them again."""
    whole = train(world, folder / "whole", "--skip-test", *keys)
    check_run(whole, [2, 4, 6])
    (folder / "resumed").mkdir()
    for name in ("config.yaml", "metrics.jsonl", "model_0000004.pth"):
        shutil.copy(whole.folder / name, folder / "resumed")
    (folder / "resumed" / "last_checkpoint").write_text("model_0000004.pth")
    resumed = train(world, folder / "resumed", "--skip-test", "--resume", *keys)
    assert "at iteration 4 of 6" in resumed.output
    return whole, resumed


def test_resuming_gives_the_same_bits(gpu_world: World, tmp_path: Path) -> None:
    """ATSS in float16 with deterministic operators: weights, their average, optimizer, loss scale."""
    keys = [*amp("float16"), "DETERMINISTIC", "True", "SOLVER.EMA_DECAY", "0.9", "DATALOADER.NUM_WORKERS", "1"]
    whole, resumed = whole_and_resumed(gpu_world, tmp_path, *keys)
    if "has no deterministic" in whole.output:
        assert_close(whole, resumed)
        return
    states = [io.load(each.model) for each in (whole, resumed)]
    for state in states:
        del state["config"]  # OUTPUT_DIR differs
    _assert_equal(*states)
    assert figures_of(whole.folder) == figures_of(resumed.folder)


def test_resuming_a_cascade(gpu_world: World, tmp_path: Path) -> None:
    """In bfloat16 with deformable convolutions, whose gradients are sums in any order."""
    assert_close(*whole_and_resumed(gpu_world, tmp_path, *amp("bfloat16"), *CASCADE))


def assert_close(whole: Trained, resumed: Trained) -> None:
    first, second = (io.load(each.model)["model"] for each in (whole, resumed))
    for name, tensor in first.items():
        distance = (second[name].double() - tensor.double()).norm()
        assert distance <= 0.05 * tensor.double().norm() + 1e-2, name


@needs_gpu
def test_a_checkpoint_of_the_gpu_is_used_without_one(gpu_world: World, gpu_trained: Trained, tmp_path: Path) -> None:
    keys = ["MODEL.WEIGHT", gpu_trained.model, "OUTPUT_DIR", tmp_path]
    done = run(gpu_world.command("tools/test_net.py", *keys), env={"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert "MODEL.DEVICE is cuda but no GPU is usable here: using the CPU" in done.stdout


# ---------------------------------------------------------------- signals

MANY = ["--skip-test", "SOLVER.MAX_ITER", "5000", "SOLVER.LOG_PERIOD", "1", "SOLVER.CHECKPOINT_PERIOD", "0"]


def _end(process: subprocess.Popen[str], number: int) -> str:
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 75 and errors == "", output + errors
    return output


def test_a_signal_saves(gpu_world: World, tmp_path: Path) -> None:
    process = start(gpu_world.command("tools/train_net.py", *MANY, "OUTPUT_DIR", tmp_path))
    _wait_for_iteration(process, tmp_path, 3)
    output = _end(process, signal.SIGTERM)
    (path,) = tmp_path.glob("model_0*.pth")
    done = io.load(path)["iteration"]
    assert f"at iteration {done}: saved in {path}; continue with --resume" in output
    again = train(gpu_world, tmp_path, "--resume", *MANY, "SOLVER.MAX_ITER", str(done + 2))
    assert f"at iteration {done} of {done + 2}" in again.output


def test_a_signal_while_images_do_not_come(gpu_world: World, tmp_path: Path) -> None:
    """Another thread saves, beside the stream on which the main thread has worked."""
    (tmp_path / "hanging.py").write_text(HANGING)
    flag, folder = tmp_path / "hangs", tmp_path / "run"
    keys = ["DATASETS.CATALOG.fabric_train.type", "Hanging", "IMPORTS", "('hanging',)", "OUTPUT_DIR", folder]
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {"PYTHONPATH": path, "HANGS": str(flag)}
    process = start(gpu_world.command("tools/train_net.py", *MANY, *keys), env=env)
    _wait_for_iteration(process, folder, 3)
    flag.touch()
    time.sleep(2)
    output = _end(process, signal.SIGTERM)
    (path,) = folder.glob("model_0*.pth")
    assert f"saved in {path}" in output
    assert all(tensor.isfinite().all() for tensor in io.load(path)["model"].values())


# ---------------------------------------------------------------- memory

LIMITED = """
import runpy, sys, torch
limit = float(sys.argv[1]) * 2**20 / torch.cuda.get_device_properties(0).total_memory
torch.cuda.set_per_process_memory_fraction(limit)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def limited(megabytes: int, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """The command in a process that may use so much memory of the GPU."""
    return run(["-c", LIMITED, str(megabytes), *command])


LARGE = ["INPUT.MIN_SIZE_TRAIN", "(1200,)", "INPUT.MAX_SIZE_TRAIN", "1600", "INPUT.MIN_SIZE_TEST", "1200"]
LARGE += ["INPUT.MAX_SIZE_TEST", "1600"]


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the GPU ran out of memory") and all(word in line for word in words), line


@needs_gpu
@pytest.mark.parametrize("megabytes", [300, 8])
def test_a_training_without_memory(gpu_world: World, tmp_path: Path, megabytes: int) -> None:
    """In a step, and before the model itself is there."""
    done = limited(megabytes, gpu_world.command("tools/train_net.py", *LARGE, "OUTPUT_DIR", tmp_path / "run"))
    assert_one_line(done, "SOLVER.AMP" if megabytes > 8 else "lower")


@needs_gpu
def test_a_test_without_memory(gpu_world: World, gpu_trained: Trained, tmp_path: Path) -> None:
    keys = ["MODEL.WEIGHT", gpu_trained.model, "OUTPUT_DIR", tmp_path / "run"]
    assert_one_line(limited(80, gpu_world.command("tools/test_net.py", *LARGE, *keys)), "TEST.IMS_PER_BATCH")


@pytest.fixture
def no_more_memory() -> Iterator[None]:
    """This process may use 20 MB of the GPU more than it does."""
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + 20 * 2**20
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@needs_gpu
def test_a_model_without_memory(gpu_world: World, gpu_trained: Trained, no_more_memory: None) -> None:
    with pytest.raises(InputError, match="the GPU ran out of memory: lower TEST.IMS_PER_BATCH"):
        Predictor(load_config(gpu_world.config), gpu_trained.model)


@needs_gpu
def test_an_image_without_memory(gpu_world: World, gpu_trained: Trained, request: pytest.FixtureRequest) -> None:
    cfg = load_config(gpu_world.config, ["INPUT.MIN_SIZE_TEST", "2000", "INPUT.MAX_SIZE_TEST", "2000"])
    predict = Predictor(cfg, gpu_trained.model)
    request.getfixturevalue("no_more_memory")
    with pytest.raises(InputError, match="the GPU ran out of memory: lower TEST.IMS_PER_BATCH"):
        predict(np.zeros((100, 100, 3), np.uint8))


# ---------------------------------------------------------------- launchers


def test_one_process_of_torchrun_with_synchronised_norms(gpu_world: World, tmp_path: Path) -> None:
    keys = ["--skip-test", "MODEL.USE_SYNCBN", "True", "MODEL.RESNETS.NORM", "BN", "OUTPUT_DIR", tmp_path]
    done = run([*several_processes("torchrun", 1), *gpu_world.command("tools/train_net.py", *keys)])
    assert done.returncode == 0, done.stdout + done.stderr
    assert io.load(tmp_path / "model_final.pth")["iteration"] == 6


@needs_gpu
def test_more_processes_than_gpus(gpu_world: World, tmp_path: Path) -> None:
    count = torch.cuda.device_count() + 1
    front = several_processes("torchrun", count)
    done = run([*front, *gpu_world.command("tools/train_net.py", "OUTPUT_DIR", tmp_path)])
    assert done.returncode != 0 and f"no GPU for process {count - 1}" in done.stderr, done.stderr


@needs_gpu
def test_a_gpu_that_is_not_there(gpu_world: World) -> None:
    count = torch.cuda.device_count()
    with pytest.raises(InputError, match=f"write cuda:{count - 1} or less"):
        build_device(load_config(gpu_world.config, ["MODEL.DEVICE", f"cuda:{count}"]))
