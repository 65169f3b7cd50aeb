"""A second command into the output folder of a run: refused, and the first goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from engine.folder_lock import LOCK_FILE
from tests.end_to_end.conftest import TIMEOUT, Trained, World, read_lines, run, several_processes, start

KEYS = ["--skip-test", "SOLVER.LOG_PERIOD", "1", "SOLVER.MAX_ITER", "500", "SOLVER.CHECKPOINT_PERIOD", "2"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="sees other processes in /proc")
def test_a_folder_in_use_and_after_a_kill(world: World, trained: Trained, tmp_path: Path) -> None:
    """Testing with one process and training with two into the folder of a training, which resumes after SIGKILL."""
    folder = tmp_path / "run"
    first = start(world.command("tools/train_net.py", *KEYS, "OUTPUT_DIR", folder))
    deadline = time.monotonic() + TIMEOUT
    while not (folder / "last_checkpoint").exists():
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGSTOP)  # so that its own files stay as they are meanwhile
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    torchrun = several_processes("torchrun")
    for command, code, count in (
        (world.command("tools/test_net.py", "MODEL.WEIGHT", trained.model, "OUTPUT_DIR", folder), 2, 1),
        ([*torchrun, *world.command("tools/train_net.py", "--resume", "OUTPUT_DIR", folder)], 1, 2),
    ):
        refused = run(command)
        lines = [line for line in refused.stderr.splitlines() if line.startswith("error: ")]
        assert refused.returncode == code and len(lines) == count, refused.stderr
        assert all(f"{folder} is in use by another run (process {first.pid} on " in line for line in lines)
        assert refused.stdout == ""
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=TIMEOUT)
    assert (folder / LOCK_FILE).exists()
    done = len(read_lines(folder / "metrics.jsonl"))
    again = run(world.command("tools/train_net.py", "--resume", *KEYS[:-3], str(done + 2), "OUTPUT_DIR", folder))
    assert again.returncode == 0, again.stderr
    told = f"the lock of process {first.pid} on "
    assert told in again.stdout and told in (folder / "log.txt").read_text() and "waiting" not in again.stdout
    assert "resuming from" in again.stdout and not (folder / LOCK_FILE).exists()
