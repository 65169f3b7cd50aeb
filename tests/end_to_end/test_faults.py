"""What may happen to a training: killed processes, damaged checkpoints, a full disk. Nothing is lost, all is said."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from engine.checkpoint import io
from engine.training.writers import read_records
from tests.end_to_end.conftest import (
    TIMEOUT,
    Trained,
    World,
    figures_of,
    free_port,
    read_metrics,
    run,
    several_processes,
    start,
    train_into,
)

NUM_KILLS = pytest.mark.parametrize("num_kills", [3, pytest.param(10, marks=pytest.mark.nightly)])
NUM_ITERATIONS = 24
LENGTH = ["SOLVER.MAX_ITER", str(NUM_ITERATIONS), "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.KEEP_CHECKPOINTS", "2"]
KEYS = ["--skip-test", "SOLVER.LOG_PERIOD", "1", "SOLVER.STEPS", "(12, 20)", *LENGTH]
EVERYTHING = [
    *("SOLVER.OPTIMIZER", "AdamW", "SOLVER.ACCUMULATE", "2", "SOLVER.EMA_DECAY", "0.9"),
    *("DATALOADER.NUM_WORKERS", "2"),
]
PROC = Path("/proc")

needs_proc = pytest.mark.skipif(
    not (PROC / f"self/task/{os.getpid()}/children").exists(), reason="finds the processes of a job in /proc"
)


# ---------------------------------------------------------------- helpers


def _descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and theirs."""
    found = []
    with contextlib.suppress(OSError):
        for child in (PROC / f"{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _kill(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _inode(path: Path) -> int | None:
    return path.stat().st_ino if path.exists() else None


def _wait_for_iteration(process: subprocess.Popen[str], folder: Path, iteration: int, stale: int | None = None) -> None:
    """Until the metrics of `folder` have reached `iteration`; a run begins by replacing the file of inode `stale`."""
    path, deadline = folder / "metrics.jsonl", time.monotonic() + TIMEOUT
    while _inode(path) in (None, stale) or all(record["iteration"] < iteration for record in read_records(path)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"iteration {iteration} does not come"
        time.sleep(0.01)


def _assert_same_end(ours: Path, theirs: Path) -> None:
    """Weights, average, optimizer and log of two runs are the same bits."""
    states = [io.load(folder / "model_final.pth") for folder in (ours, theirs)]
    for state in states:
        del state["config"]  # OUTPUT_DIR differs
    _assert_equal(*states)
    assert figures_of(ours) == figures_of(theirs)


def _assert_equal(first: object, second: object, where: str = "") -> None:
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            _assert_equal(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, pair in enumerate(zip(first, second, strict=True)):
            _assert_equal(*pair, f"{where}/{index}")
    else:
        assert first == second, where


# ---------------------------------------------------------------- SIGKILL


def _train_with_kills(world: World, folder: Path, num_kills: int, front: Sequence[str], *keys: str) -> None:
    """Kill all processes of the training so often, in another iteration each, anywhere in it; then let it finish."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the moments: {seed}")
    dice = random.Random(seed)
    command = [*front, *world.command("tools/train_net.py", "--resume", *keys, "OUTPUT_DIR", folder)]
    for iteration in sorted(dice.sample(range(1, NUM_ITERATIONS - 5), num_kills)):
        stale = _inode(folder / "metrics.jsonl")
        process = start(command)
        _wait_for_iteration(process, folder, iteration, stale)
        time.sleep(dice.uniform(0, 0.2))  # somewhere in the step or the writing of a checkpoint
        _kill([process.pid, *_descendants(process.pid)])
        output, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == -signal.SIGKILL, output
    process = start(command)
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0 and f"of {NUM_ITERATIONS}" in output and "resuming from" in output, errors


@needs_proc
@NUM_KILLS
def test_kills_change_nothing(world: World, tmp_path: Path, num_kills: int) -> None:
    """Two loader workers, AdamW, two passes a step, an average of the weights."""
    whole = train_into(world, tmp_path / "whole", *KEYS, *EVERYTHING)
    assert len(read_metrics(whole.folder)) == NUM_ITERATIONS
    _train_with_kills(world, tmp_path / "killed", num_kills, [], *KEYS, *EVERYTHING)
    _assert_same_end(tmp_path / "killed", whole.folder)


@pytest.fixture(scope="module")
def both(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The uninterrupted run of two processes."""
    return train_into(world, tmp_path_factory.mktemp("both") / "run", *KEYS, launcher="torchrun")


@needs_proc
@NUM_KILLS
def test_kills_of_two_processes_change_nothing(world: World, both: Trained, tmp_path: Path, num_kills: int) -> None:
    _train_with_kills(world, tmp_path / "killed", num_kills, several_processes("torchrun"), *KEYS)
    _assert_same_end(tmp_path / "killed", both.folder)


@needs_proc
def test_a_refused_start_is_not_made_good_by_resuming_an_older_run(
    world: World, trained: Trained, tmp_path: Path
) -> None:
    """torchrun starts it again, as it does after any error; a lone process too."""
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    front = [*several_processes("torchrun", 1), "--max-restarts=1", "--monitor-interval=0.2"]
    keys = ["OUTPUT_DIR", folder, "MODEL.WEIGHT", tmp_path / "none.pth"]
    done = run([*front, *world.command("tools/train_net.py", "--skip-test", *keys)])
    assert done.returncode == 1 and done.stderr.count(f"error: {tmp_path / 'none.pth'}") == 2
    assert "nothing left to train" not in done.stdout and (folder / "model_final.pth").exists()


@needs_proc
@pytest.mark.parametrize("rendezvous", ["c10d", "static"])
def test_torchrun_starts_a_job_again_that_lost_a_process(
    world: World, both: Trained, trained: Trained, tmp_path: Path, rendezvous: str
) -> None:
    """In a folder that holds an older run, which is not the one to resume."""
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    front = several_processes("torchrun")
    if rendezvous == "static":  # what torchrun does without options
        front = [*front[:3], f"--master-port={free_port()}"]
    front += ["--max-restarts=1", "--monitor-interval=0.2"]
    stale = _inode(folder / "metrics.jsonl")
    process = start([*front, *world.command("tools/train_net.py", *KEYS, "OUTPUT_DIR", folder)])
    _wait_for_iteration(process, folder, 7, stale)
    _kill([_process_of_rank(1, process.pid)])
    output, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    assert "resuming from" in output and f"of {NUM_ITERATIONS}" in output
    _assert_same_end(folder, both.folder)


def _process_of_rank(rank: int, launcher: int) -> int:
    for pid in _descendants(launcher):
        if f"RANK={rank}".encode() in (PROC / f"{pid}/environ").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(f"no process of rank {rank}")


@needs_proc
def test_a_dead_loader_worker_is_named(world: World, tmp_path: Path) -> None:
    keys = [*KEYS, "SOLVER.MAX_ITER", "500", "DATALOADER.NUM_WORKERS", "1"]
    process = start(world.command("tools/train_net.py", *keys, "OUTPUT_DIR", tmp_path))
    _wait_for_iteration(process, tmp_path, 3)
    (worker,) = _descendants(process.pid)
    _kill([worker])
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: DataLoader worker (pid") and f" {worker}) " in line and "NUM_WORKERS" in line


# ---------------------------------------------------------------- a folder that is in use


def test_nobody_forgets_resume_without_a_way_back(world: World, trained: Trained, tmp_path: Path) -> None:
    """A start that is refused changes no file of the run that is there; a new one moves them aside, ready to go on."""
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    (folder / "log.txt").unlink()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    refused = world.train("OUTPUT_DIR", folder, "MODEL.WEIGHT", tmp_path / "none.pth")
    assert refused.returncode == 2
    (folder / "log.txt").unlink()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    keys = ["MODEL.WEIGHT", folder / "model_final.pth", "SOLVER.MAX_ITER", "1"]  # from the file that is moved away
    train_into(world, folder, "--skip-test", *keys)
    assert {path.name for path in folder.glob("*.pth")} == {"model_final.pth"}
    assert len(read_metrics(folder)) == 1
    old = folder / "previous-1"
    assert f"WEIGHT: {old / 'model_final.pth'}" in (folder / "config.yaml").read_text()
    assert (old / "inference").is_dir() and not (folder / "inference").exists()
    again = world.train("--resume", "--skip-test", "OUTPUT_DIR", old, "SOLVER.MAX_ITER", "7")
    assert again.returncode == 0 and "iteration 6 of 7" in again.stdout, again.stderr
    assert len(read_metrics(old)) == 4


# ---------------------------------------------------------------- numbers


def test_a_loss_that_is_not_finite_names_its_images_and_keeps_them(world: World, tmp_path: Path) -> None:
    done = world.train(*KEYS, "OUTPUT_DIR", tmp_path, "SOLVER.BASE_LR", "1e30", "SOLVER.CHECKPOINT_PERIOD", "1")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    kept = tmp_path / "nonfinite_batch_0.pth"
    (batch,) = torch.load(kept, weights_only=True)["batches"]
    ids = ", ".join(str(target["image_id"]) for target in batch["targets"])
    assert line.startswith("error: the loss is not finite") and f"at images {ids}:" in line and str(kept) in line
    assert len(batch["images"]) == len(batch["targets"]) == 4


# ---------------------------------------------------------------- SIGTERM


@needs_proc
@pytest.mark.parametrize("front", [[], several_processes("torchrun")], ids=["one process", "two processes"])
def test_a_notice_saves_and_ends_with_a_code_of_its_own(world: World, tmp_path: Path, front: list[str]) -> None:
    keys = [*KEYS, "SOLVER.CHECKPOINT_PERIOD", "0", "SOLVER.MAX_ITER", "500"]
    process = start([*front, *world.command("tools/train_net.py", *keys, "OUTPUT_DIR", tmp_path)])
    _wait_for_iteration(process, tmp_path, 2)
    os.kill(_process_of_rank(1, process.pid) if front else process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=TIMEOUT)
    (path,) = tmp_path.glob("model_*.pth")
    done = io.load(path)["iteration"]
    assert f"SIGTERM at iteration {done}: saved in {path}; continue with --resume" in output
    if front:
        assert process.returncode == 1 and "exitcode  : 75" in errors  # torchrun has a code of its own
    else:
        assert process.returncode == 75 and errors == ""
    assert (tmp_path / "last_checkpoint").read_text() == path.name


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty"])
def test_a_damaged_last_checkpoint(world: World, trained: Trained, tmp_path: Path, how: str) -> None:
    """The one before is taken, said aloud, and the end is the same."""
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    last = folder / "model_final.pth"
    content = last.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    last.write_bytes({"truncated": content[:middle], "flipped": flipped, "empty": b""}[how])
    done = world.train("--resume", "--skip-test", "OUTPUT_DIR", folder)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stdout.splitlines() if str(last) in line]
    assert len(warnings) == 1, done.stdout
    assert f"falling back to an earlier checkpoint: {folder / 'model_0000004.pth'}" in done.stdout
    ours, theirs = io.load(last), io.load(trained.model)
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in theirs["model"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder of its own 150 MB: enough for one checkpoint, not for two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=150m", "tmpfs", str(folder)]
    is_possible = sys.platform == "linux" and shutil.which("mount") is not None
    if not is_possible or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_last_good_checkpoint(world: World, trained: Trained, small_disk: Path) -> None:
    size = (trained.folder / "model_0000004.pth").stat().st_size
    assert size < 150e6 < 2 * size, "the disk must hold one of them, not two"
    folder = small_disk / "run"
    keys = ["--skip-test", "OUTPUT_DIR", folder, "SOLVER.CHECKPOINT_PERIOD", "3", "DATALOADER.NUM_WORKERS", "2"]
    full = world.train(*keys)
    assert full.returncode == 2
    (line,) = full.stderr.splitlines()
    assert line.startswith(f"error: {folder / 'model_0000006.pth'}: cannot be written") and "free some space" in line
    assert io.load(folder / "model_0000003.pth")["iteration"] == 3
    assert (folder / "last_checkpoint").read_text() == "model_0000003.pth"
    assert {path.name for path in folder.glob("*.pth")} == {"model_0000003.pth"}

    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    again = world.train("--resume", *keys)
    assert again.returncode == 0 and "iteration 3 of 6" in again.stdout, again.stderr
    ours, theirs = io.load(folder / "model_final.pth"), io.load(trained.model)
    assert all(torch.equal(ours["model"][name], theirs["model"][name]) for name in theirs["model"])
