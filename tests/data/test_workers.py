"""Whatever ends the main process, in the middle of an epoch, its workers end too, and it does not wait for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

WriteCoco = Callable[..., Path]
REPOSITORY = Path(__file__).resolve().parents[2]

SCRIPT = """
import multiprocessing, sys, time
from engine.data.dataset import CocoDataset
from engine.data.loader import BatchLoader, TestSamples
from engine.data.samplers import TestBatchSampler
from engine.data.transforms import test_transform

multiprocessing.set_start_method(sys.argv[3], force=True)
dataset = CocoDataset("toy", *sys.argv[1:3])
samples = TestSamples(dataset, test_transform(16, 32, [0.0] * 3, [1.0] * 3))
batches = iter(BatchLoader(dataset, samples, TestBatchSampler(len(dataset), 1), num_workers=2))
next(batches)
print(*[process.pid for process in multiprocessing.active_children()], flush=True)
"""


@pytest.fixture
def command(write_coco: WriteCoco) -> list[str]:
    """Of a process with two workers, to which an end is added; their batches are larger than what a pipe holds."""
    images = [(number, 20, 20) for number in range(8)]
    boxes = [{"image_id": number % 8, "category_id": 3, "bbox": [1, 2, 3, 4]} for number in range(8 * 3000)]
    folder = write_coco(images, boxes)
    return [sys.executable, "-c", SCRIPT, str(folder / "images"), str(folder / "ann.json")]


def _with_end(command: list[str], end: str, method: str = "fork") -> list[str]:
    return [*command[:2], command[2] + end, *command[3:], method]


def test_an_error(command: list[str]) -> None:
    ended = _with_end(command, "raise ValueError('in the middle')")
    done = subprocess.run(ended, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 1 and done.stderr.endswith("ValueError: in the middle\n")
    _wait_for_the_end([int(pid) for pid in done.stdout.split()])


def test_other_children_are_left_alone(command: list[str]) -> None:
    """A pool that nobody closed: Python itself ends it."""
    ended = _with_end(command, "pool = multiprocessing.Pool(1); print(pool.apply(abs, (-7,)))")
    done = subprocess.run(ended, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 0 and done.stdout.endswith("\n7\n") and done.stderr == ""


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_kill(command: list[str], method: str) -> None:
    """Workers are in the middle of writing; `method` is Python's, which differs between its versions."""
    ended = _with_end(command, "time.sleep(60)", method)
    with subprocess.Popen(ended, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        time.sleep(1)  # until the pipe is full
        process.send_signal(signal.SIGKILL)
    assert len(workers) == 2
    _wait_for_the_end(workers)


@pytest.mark.skipif(sys.platform != "linux", reason="workers note their process ids in shared memory")
def test_a_worker_that_hangs_does_not_keep_its_process(command: list[str]) -> None:
    """It is stopped, so that it hears nothing, not even the end of the main process."""
    stop = "import os, signal; os.kill(multiprocessing.active_children()[0].pid, signal.SIGSTOP)"
    done = subprocess.run(_with_end(command, stop), capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 0 and done.stderr == ""
    _wait_for_the_end([int(pid) for pid in done.stdout.split()])


def _wait_for_the_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their process"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    """Zombies, whose parent has not asked for their end yet, are not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
