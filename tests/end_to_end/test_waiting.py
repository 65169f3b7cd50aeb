"""Commands that have to wait, for memory, images or each other: they end, and a signal ends them within 5 seconds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.checkpoint import io
from tests.end_to_end.conftest import (
    PATIENCE,
    TIMEOUT,
    Trained,
    World,
    read_metrics,
    run,
    several_processes,
    start,
    train_into,
)
from tests.end_to_end.test_faults import _assert_same_end, _process_of_rank, _wait_for_iteration, needs_proc

HANGING = """
import os, time
from engine.data.dataset import DATASET_TYPES, CocoDataset

@DATASET_TYPES.register("Hanging")
class Hanging(CocoDataset):
    def read(self, index):
        while os.path.exists(os.environ["HANGS"]):
            time.sleep(0.02)
        return super().read(index)
"""


# ---------------------------------------------------------------- a small /dev/shm


def _in_container(size: str, command: Sequence[str | Path], is_full: bool = False) -> list[str]:
    """The command with a `/dev/shm` of its own of this size."""
    fill = "dd if=/dev/zero of=/dev/shm/full bs=1k 2> /dev/null; " if is_full else ""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && {{ {fill}exec "$0" "$@"; }}'
    options = "-m" if os.geteuid() == 0 else "-rm"
    return ["unshare", options, "sh", "-c", script, sys.executable, *map(str, command)]


def _run_in_container(size: str, command: Sequence[str | Path], is_full: bool = False) -> str:
    if (
        shutil.which("unshare") is None
        or subprocess.run(_in_container("1m", ["-c", ""]), capture_output=True).returncode
    ):
        pytest.skip("this machine does not allow mount namespaces of one's own")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        _in_container(size, command, is_full), capture_output=True, text=True, timeout=TIMEOUT, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


LARGE = ["INPUT.MIN_SIZE_TRAIN", "(800,)", "INPUT.MIN_SIZE_TEST", "800", "TEST.IMS_PER_BATCH", "4"]
LARGE += ["INPUT.MAX_SIZE_TRAIN", "1100", "INPUT.MAX_SIZE_TEST", "1100", "MODEL.BACKBONE.FREEZE_CONV_BODY_AT", "5"]
SHORT = ["SOLVER.MAX_ITER", "2", "DATALOADER.NUM_WORKERS", "2"]


def test_four_large_images_in_64_mb(world: World, tmp_path: Path) -> None:
    """Two batches of 42 MB in training, two in testing; nothing but the speed of the model limits the run."""
    output = _run_in_container("64m", world.command("tools/train_net.py", *SHORT, *LARGE, "OUTPUT_DIR", tmp_path))
    assert "shm" not in output and (tmp_path / "inference" / "fabric_val" / "metrics.json").exists()


def test_two_processes_share_1_mb(world: World, tmp_path: Path) -> None:
    """A batch of images of 96 pixels takes 300 kB."""
    front = several_processes("torchrun")
    keys = [*SHORT, "SOLVER.MAX_ITER", "4", "TEST.IMS_PER_BATCH", "4", "OUTPUT_DIR", tmp_path]
    output = _run_in_container("1m", [*front, *world.command("tools/train_net.py", *keys)])
    assert "shm" not in output and (tmp_path / "inference" / "fabric_val" / "metrics.json").exists()


@pytest.mark.parametrize(("size", "num_processes"), [("64m", 2), ("1m", 1)])
def test_testing_alone(world: World, trained: Trained, tmp_path: Path, size: str, num_processes: int) -> None:
    keys = [*LARGE, "DATALOADER.NUM_WORKERS", "2", "MODEL.WEIGHT", trained.model, "OUTPUT_DIR", tmp_path]
    front = several_processes("torchrun", num_processes) if num_processes > 1 else []
    _run_in_container(size, [*front, *world.command("tools/test_net.py", *keys)])
    assert (tmp_path / "inference" / "fabric_val" / "metrics.json").exists()


def test_no_room_at_all(world: World, tmp_path: Path) -> None:
    """Then there are no semaphores, and without them no workers."""
    command = world.command("tools/train_net.py", *SHORT, "OUTPUT_DIR", tmp_path)
    output = _run_in_container("1m", command, is_full=True)
    (line,) = [line for line in output.splitlines() if "shm" in line]
    assert "--shm-size" in line and "No space left on device" in line
    assert (tmp_path / "inference" / "fabric_val" / "metrics.json").exists()


# ---------------------------------------------------------------- images that do not come


@dataclass
class Hanging:
    """A world whose training or validation images cannot be read while a file exists."""

    world: World
    folder: Path  # of modules, flag and output
    keys: list[str]

    @property
    def flag(self) -> Path:
        return self.folder / "hangs"

    def start(self, script: str, *options: str | Path, front: Sequence[str] = ()) -> subprocess.Popen[str]:
        (self.folder / "hanging.py").write_text(HANGING)
        command = [*front, *self.world.command(script, *options, *self.keys, "IMPORTS", "('hanging',)")]
        return start(command, env={"PYTHONPATH": str(self.folder), "HANGS": str(self.flag)})


@pytest.fixture
def hanging(world: World, tmp_path: Path) -> Hanging:
    return Hanging(world, tmp_path, ["DATASETS.CATALOG.fabric_train.type", "Hanging"])


@pytest.fixture
def hanging_val(world: World, tmp_path: Path) -> Hanging:
    return Hanging(world, tmp_path, ["DATASETS.CATALOG.fabric_val.type", "Hanging"])


def _end(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[str, str]:
    """Send a signal; returns stdout and stderr of the process, which must end within 5 seconds."""
    process.send_signal(number)
    process.wait(PATIENCE)
    return process.communicate(timeout=TIMEOUT)


def _wait_for_line(path: Path, text: str) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, f"{text} does not come"
        time.sleep(0.02)


KEYS = ["--skip-test", "SOLVER.LOG_PERIOD", "1", "SOLVER.CHECKPOINT_PERIOD", "0", "SOLVER.EMA_DECAY", "0.9"]
KEYS += ["SOLVER.MAX_ITER", "9"]
VALIDATING = ["DATASETS.VAL", "('fabric_val',)", "SOLVER.VALIDATION.PERIOD", "3"]


@pytest.fixture(scope="module")
def whole(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The uninterrupted run."""
    return train_into(world, tmp_path_factory.mktemp("whole") / "run", *KEYS, *VALIDATING)


@pytest.mark.parametrize(("number", "num_workers"), [(signal.SIGTERM, 2), (signal.SIGINT, 0)])
def test_a_signal_while_images_do_not_come(hanging: Hanging, whole: Trained, number: int, num_workers: int) -> None:
    """The resumed run ends like an uninterrupted one."""
    folder = hanging.folder / "run"
    keys = [*KEYS, *VALIDATING, "DATALOADER.NUM_WORKERS", str(num_workers), "OUTPUT_DIR", folder]
    process = hanging.start("tools/train_net.py", *keys)
    _wait_for_iteration(process, folder, 1)
    hanging.flag.touch()
    time.sleep(2)
    output, errors = _end(process, number)
    (path,) = folder.glob("model_0*.pth")
    done = io.load(path)["iteration"]
    assert process.returncode == 75 and errors == ""
    said = f"{signal.Signals(number).name} at iteration {done}: saved in {path}; continue with --resume"
    assert output.splitlines().count(said) == 1
    assert not (folder / "run.lock").exists()  # on another machine the resumed run would wait for its owner
    hanging.flag.unlink()
    process = hanging.start("tools/train_net.py", "--resume", *keys)
    assert process.wait(TIMEOUT) == 0, process.communicate()
    _assert_same_end(folder, whole.folder)


def test_a_signal_before_the_first_iteration(hanging: Hanging) -> None:
    folder = hanging.folder / "run"
    hanging.flag.touch()
    process = hanging.start("tools/train_net.py", *KEYS, "OUTPUT_DIR", folder)
    _wait_for_line(folder / "log.txt", "training from scratch")
    time.sleep(2)
    output, _ = _end(process)
    assert process.returncode == 75 and "SIGTERM at iteration 0: saved in" in output
    hanging.flag.unlink()
    process = hanging.start("tools/train_net.py", "--resume", *KEYS, "OUTPUT_DIR", folder)
    assert process.wait(TIMEOUT) == 0 and "at iteration 0 of 9" in process.stdout.read()


def test_a_signal_in_a_validation(hanging_val: Hanging, whole: Trained) -> None:
    """The resumed run begins with that validation, and ends like an uninterrupted one."""
    folder = hanging_val.folder / "run"
    hanging_val.flag.touch()
    process = hanging_val.start("tools/train_net.py", *KEYS, *VALIDATING, "OUTPUT_DIR", folder)
    _wait_for_iteration(process, folder, 3)
    time.sleep(2)
    output, errors = _end(process)
    path = folder / "model_0000003.pth"
    assert process.returncode == 75 and errors == "" and f"SIGTERM at iteration 3: saved in {path}" in output
    hanging_val.flag.unlink()
    process = hanging_val.start("tools/train_net.py", "--resume", *KEYS, *VALIDATING, "OUTPUT_DIR", folder)
    assert process.wait(TIMEOUT) == 0, process.communicate()
    _assert_same_end(folder, whole.folder)
    best = [io.load(each / "model_best.pth") for each in (folder, whole.folder)]
    assert best[0]["iteration"] == best[1]["iteration"]
    assert len(read_metrics(folder)) == 12


@pytest.mark.parametrize("script", ["tools/train_net.py", "tools/test_net.py"])
def test_a_signal_in_testing(hanging_val: Hanging, trained: Trained, script: str) -> None:
    folder = hanging_val.folder / "run"
    hanging_val.flag.touch()
    keys = ["MODEL.WEIGHT", trained.model] if script == "tools/test_net.py" else ["SOLVER.MAX_ITER", "1"]
    process = hanging_val.start(script, *keys, "OUTPUT_DIR", folder)
    _wait_for_line(folder / "log.txt", "testing on fabric_val")
    time.sleep(1)
    output, errors = _end(process)
    assert errors == ""
    if script == "tools/test_net.py":
        assert process.returncode == 130 and output.endswith("SIGTERM in testing: nothing was changed\n")
    else:
        final = folder / "model_final.pth"
        assert process.returncode == 75 and io.load(final)["iteration"] == 1
        assert output.endswith(f"SIGTERM in testing: {final} is saved; test it with --resume\n")
        hanging_val.flag.unlink()
        process = hanging_val.start(script, "--resume", *keys, "OUTPUT_DIR", folder)
        assert process.wait(TIMEOUT) == 0 and (folder / "inference" / "fabric_val" / "metrics.json").exists()


def test_workers_that_make_no_progress_end_the_training(hanging: Hanging) -> None:
    hanging.flag.touch()
    folder = hanging.folder / "run"
    keys = ["DATALOADER.TIMEOUT", "2", "DATALOADER.NUM_WORKERS", "2", "OUTPUT_DIR", folder]
    process = hanging.start("tools/train_net.py", *KEYS, *keys)
    _, errors = process.communicate(timeout=TIMEOUT)
    (line,) = errors.splitlines()
    assert process.returncode == 2 and line.startswith("error: no loader worker has made progress for 2 s; they")
    assert str(hanging.world.root / "train") in line and "DATALOADER.TIMEOUT" in line


# ---------------------------------------------------------------- processes that do not answer


@needs_proc
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_signal_while_another_process_is_stopped(world: World, tmp_path: Path, stopped: int) -> None:
    """The one that is left waits in a collective operation, where no handler of Python runs."""
    keys = [*KEYS, "SOLVER.MAX_ITER", "500", "OUTPUT_DIR", tmp_path]
    process = start([*several_processes("torchrun"), *world.command("tools/train_net.py", *keys)])
    _wait_for_iteration(process, tmp_path, 2)
    ranks = [_process_of_rank(rank, process.pid) for rank in (0, 1)]
    os.kill(ranks[stopped], signal.SIGSTOP)
    try:
        time.sleep(2)
        os.kill(ranks[1 - stopped], signal.SIGTERM)
        _wait_for_end(ranks[1 - stopped], PATIENCE)
        (path,) = tmp_path.glob("model_*.pth")
        done = io.load(path)["iteration"]
    finally:
        os.kill(ranks[stopped], signal.SIGKILL)
    output, errors = process.communicate(timeout=TIMEOUT)
    assert f"SIGTERM at iteration {done}: saved in {path}; continue with --resume" in output, errors
    assert "exitcode  : 75" in errors or "exitcode: 75" in errors
    assert (tmp_path / "last_checkpoint").read_text() == path.name
    resumed = run(world.command("tools/train_net.py", "--resume", *keys, "SOLVER.MAX_ITER", str(done + 1)))
    assert resumed.returncode == 0 and f"at iteration {done} of {done + 1}" in resumed.stdout, resumed.stderr


@needs_proc
@pytest.mark.parametrize("target", ["rank 1", "launcher"])
def test_two_processes_whose_images_do_not_come(hanging: Hanging, target: str) -> None:
    """A signal to either of them, or to torchrun, which passes it on."""
    folder = hanging.folder / "run"
    keys = [*KEYS, "SOLVER.MAX_ITER", "500", "OUTPUT_DIR", folder]
    process = hanging.start("tools/train_net.py", *keys, front=several_processes("torchrun"))
    _wait_for_iteration(process, folder, 2)
    ranks = [_process_of_rank(rank, process.pid) for rank in (0, 1)]
    hanging.flag.touch()
    time.sleep(2)
    os.kill(ranks[1] if target == "rank 1" else process.pid, signal.SIGTERM)
    for rank in ranks:
        _wait_for_end(rank, PATIENCE)
    output, errors = process.communicate(timeout=TIMEOUT)
    (path,) = folder.glob("model_*.pth")
    done = io.load(path)["iteration"]
    assert output.count(f"SIGTERM at iteration {done}: saved in {path}") == 1, output + errors
    assert "error:" not in errors


def _wait_for_end(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.02)
