"""`train_net.py` on the GPU: precisions, resuming, signals, memory."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from engine.checkpoint import io
from tests.cuda.conftest import ENV, command, train
from tests.cuda.device import DEVICE, needs_device, needs_gpu
from tests.end_to_end.conftest import Trained, World, figures_of, read_metrics, run, several_processes, start
from tests.end_to_end.test_faults import _assert_equal, _wait_for_iteration
from tests.end_to_end.test_waiting import HANGING

pytestmark = needs_device

TWO_STAGE = ["MODEL.RPN_ONLY", "False", "MODEL.ATSS_ON", "False", "MODEL.BACKBONE.CONV_BODY", "R-18-FPN"]
TWO_STAGE += ["MODEL.RPN.USE_FPN", "True", "MODEL.RPN.ANCHOR_STRIDE", "(4, 8, 16, 32, 64)"]
TWO_STAGE += ["MODEL.ROI_HEADS.USE_FPN", "True", "MODEL.ROI_HEADS.NAME", "CascadeROIHeads"]
TWO_STAGE += ["MODEL.ROI_HEADS.SAMPLER", "ohem", "MODEL.ROI_BOX_HEAD.NUM_CLASSES", "0"]
TWO_STAGE += ["MODEL.ROI_BOX_HEAD.FEATURE_EXTRACTOR", "FPN2MLPFeatureExtractor", "MODEL.CLS_AGNOSTIC_BBOX_REG", "True"]
TWO_STAGE += ["MODEL.ROI_BOX_HEAD.PREDICTOR", "FPNPredictor", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", "7"]
TWO_STAGE += ["MODEL.ROI_BOX_HEAD.POOLER_SCALES", "(0.25, 0.125, 0.0625, 0.03125)"]
TWO_STAGE += ["MODEL.ROI_BOX_HEAD.MLP_HEAD_DIM", "32"]
TWO_STAGE += ["MODEL.RESNETS.STAGE_WITH_DCN", "(False, False, True, True)", "MODEL.RESNETS.WITH_MODULATED_DCN", "True"]
KINDS = {"atss": [], "cascade": TWO_STAGE}


def amp(dtype: str) -> list[str]:
    return ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", dtype] if dtype != "float32" else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_six_iterations(world: World, tmp_path: Path, kind: str, dtype: str) -> None:
    """Images come from two workers through pinned memory; tested at the end."""
    done = train(world, tmp_path, *amp(dtype), *KINDS[kind], "DATALOADER.NUM_WORKERS", "2", "SOLVER.EMA_DECAY", "0.9")
    lines = read_metrics(done.folder)
    assert [line["iteration"] for line in lines] == [2, 4, 6] and all(math.isfinite(line["loss"]) for line in lines)
    state = io.load(done.model)
    assert all(tensor.device.type == "cpu" and tensor.isfinite().all() for tensor in state["model"].values())
    assert (done.inference / "metrics.json").exists()
    if DEVICE.type == "cuda":
        assert "using the CPU" not in done.output and "SOLVER.AMP is off" not in done.output
        assert all(line["memory_mb"] > 10 for line in lines)


@needs_gpu
def test_a_checkpoint_of_the_gpu_is_used_without_one(world: World, trained: Trained, tmp_path: Path) -> None:
    keys = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", trained.model, "OUTPUT_DIR", tmp_path]
    done = run(world.command("tools/test_net.py", *keys), env={**ENV, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_resuming_gives_the_same_bits(world: World, tmp_path: Path, dtype: str) -> None:
    """With deterministic operators, the average and the loss scale too."""
    keys = [*amp(dtype), "DETERMINISTIC", "True", "SOLVER.EMA_DECAY", "0.9", "DATALOADER.NUM_WORKERS", "1"]
    whole = train(world, tmp_path / "whole", "--skip-test", *keys)
    for name in ("config.yaml", "metrics.jsonl", "model_0000004.pth"):
        (tmp_path / "resumed").mkdir(exist_ok=True)
        shutil.copy(whole.folder / name, tmp_path / "resumed")
    (tmp_path / "resumed" / "last_checkpoint").write_text("model_0000004.pth")
    resumed = train(world, tmp_path / "resumed", "--skip-test", "--resume", *keys)
    assert "at iteration 4 of 6" in resumed.output
    states = [io.load(each.model) for each in (whole, resumed)]
    for state in states:
        del state["config"]  # OUTPUT_DIR differs
    _assert_equal(*states)
    assert figures_of(whole.folder) == figures_of(resumed.folder)


def test_resuming_without_them_is_close(world: World, tmp_path: Path) -> None:
    whole = train(world, tmp_path / "whole", "--skip-test", *TWO_STAGE)
    (tmp_path / "resumed").mkdir()
    shutil.copy(whole.folder / "model_0000004.pth", tmp_path / "resumed")
    (tmp_path / "resumed" / "last_checkpoint").write_text("model_0000004.pth")
    resumed = train(world, tmp_path / "resumed", "--skip-test", "--resume", *TWO_STAGE)
    first, second = (io.load(each.model)["model"] for each in (whole, resumed))
    for name, tensor in first.items():
        assert (second[name] - tensor).double().norm() <= 0.02 * tensor.double().norm() + 1e-3, name


# ---------------------------------------------------------------- signals

MANY = ["--skip-test", "SOLVER.MAX_ITER", "5000", "SOLVER.LOG_PERIOD", "1", "SOLVER.CHECKPOINT_PERIOD", "0"]


def _end(process: subprocess.Popen[str], number: int) -> str:
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 75 and errors == "", output + errors
    return output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves(world: World, tmp_path: Path, number: int) -> None:
    process = start(world.command("tools/train_net.py", *MANY, "OUTPUT_DIR", tmp_path), env=ENV)
    _wait_for_iteration(process, tmp_path, 3)
    output = _end(process, number)
    (path,) = tmp_path.glob("model_0*.pth")
    done = io.load(path)["iteration"]
    assert f"at iteration {done}: saved in {path}; continue with --resume" in output
    again = train(world, tmp_path, "--resume", *MANY, "SOLVER.MAX_ITER", str(done + 2))
    assert f"at iteration {done} of {done + 2}" in again.output


def test_a_signal_while_images_do_not_come(world: World, tmp_path: Path) -> None:
    """Another thread saves, beside the stream on which the main thread has worked."""
    (tmp_path / "hanging.py").write_text(HANGING)
    flag, folder = tmp_path / "hangs", tmp_path / "run"
    keys = ["DATASETS.CATALOG.fabric_train.type", "Hanging", "IMPORTS", "('hanging',)", "OUTPUT_DIR", folder]
    path = os.pathsep.join([str(tmp_path), *filter(None, [ENV["PYTHONPATH"]])])
    env = {"PYTHONPATH": path, "HANGS": str(flag)}
    process = start(world.command("tools/train_net.py", *MANY, *keys), env=env)
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


def limited(megabytes: int, command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in a process that may use so much memory of the GPU."""
    (folder / "limited.py").write_text(LIMITED)
    return run([folder / "limited.py", str(megabytes), *command], env=ENV)


LARGE = ["INPUT.MIN_SIZE_TRAIN", "(1600,)", "INPUT.MAX_SIZE_TRAIN", "2200", "INPUT.MIN_SIZE_TEST", "1600"]
LARGE += ["INPUT.MAX_SIZE_TEST", "2200"]


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the GPU ran out of memory") and all(word in line for word in words), line


@needs_gpu
@pytest.mark.parametrize("megabytes", [400, 8])
def test_a_training_without_memory(world: World, tmp_path: Path, megabytes: int) -> None:
    """In a step, and before the model itself is there."""
    done = limited(megabytes, world.command("tools/train_net.py", *LARGE, "OUTPUT_DIR", tmp_path / "run"), tmp_path)
    assert_one_line(done, "SOLVER.AMP" if megabytes == 400 else "lower")


@needs_gpu
@pytest.mark.parametrize("megabytes", [200, 8])
def test_a_test_without_memory(world: World, trained: Trained, tmp_path: Path, megabytes: int) -> None:
    keys = ["MODEL.WEIGHT", trained.model, "OUTPUT_DIR", tmp_path / "run"]
    done = limited(megabytes, world.command("tools/test_net.py", *LARGE, *keys), tmp_path)
    assert_one_line(done, "TEST.IMS_PER_BATCH")


@needs_gpu
@pytest.mark.parametrize("megabytes", [200, 8])
def test_a_demo_without_memory(world: World, trained: Trained, tmp_path: Path, megabytes: int) -> None:
    options = ["--weights", trained.model, "--images-dir", world.root / "val", "--output-dir", tmp_path / "pictures"]
    done = limited(megabytes, world.command("demo/atss_demo.py", *options, *LARGE), tmp_path)
    assert_one_line(done, "INPUT.MIN_SIZE_TEST")


# ---------------------------------------------------------------- launchers


def test_one_process_of_torchrun_with_synchronised_norms(world: World, tmp_path: Path) -> None:
    keys = ["MODEL.USE_SYNCBN", "True", "MODEL.RESNETS.NORM", "BN", "--skip-test", "OUTPUT_DIR", tmp_path]
    flags, words = [word for word in keys if word == "--skip-test"], [word for word in keys if word != "--skip-test"]
    done = run([*several_processes("torchrun", 1), *world.command("tools/train_net.py", *flags, *words)], env=ENV)
    assert done.returncode == 0, done.stdout + done.stderr
    assert io.load(tmp_path / "model_final.pth")["iteration"] == 6


@needs_gpu
def test_more_processes_than_gpus(world: World, tmp_path: Path) -> None:
    count = torch.cuda.device_count() + 1
    front = several_processes("torchrun", count)
    done = run([*front, *world.command("tools/train_net.py", "OUTPUT_DIR", tmp_path)], env=ENV)
    assert done.returncode != 0 and f"no GPU for process {count - 1}" in done.stderr, done.stderr


@needs_gpu
def test_a_gpu_that_is_not_there(world: World, tmp_path: Path) -> None:
    count = torch.cuda.device_count()
    done = command(world, "tools/train_net.py", "MODEL.DEVICE", f"cuda:{count}", "OUTPUT_DIR", tmp_path)
    assert done.returncode == 2 and f"write cuda:{count - 1} or less" in done.stderr
    assert len(done.stderr.splitlines()) == 1
