from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine import __version__
from engine.environment import cpu_name, environment_report, git_commit, processes


def test_report_has_a_line_for_each_thing() -> None:
    engine, cpu, gpu, started, command = environment_report().splitlines()
    assert engine.startswith(f"engine {__version__}") and "torchvision" in engine and "OpenCV" in engine
    assert cpu_name() in cpu and "bfloat16" in cpu and gpu.startswith("GPU: ")
    assert started.startswith("processes: ") and command.startswith("command: ") and "python" in command


@pytest.mark.parametrize(
    ("environment", "arguments", "text"),
    [
        ({}, [], "1"),
        ({"WORLD_SIZE": "2"}, [], "2, started by another launcher"),
        (
            {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "0"},
            ["t.py", "--local-rank=1"],
            "2, started by torch.distributed.launch",
        ),
    ],
)
def test_processes(environment: dict[str, str], arguments: list[str], text: str) -> None:
    assert processes(environment, arguments) == text


def test_the_commit_is_that_of_the_folder_itself(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    try:
        subprocess.run([*git, "init", "-q"], check=True)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    (tmp_path / "inner").mkdir()
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "file"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    commit = git_commit(tmp_path)
    assert len(commit) == 10 and git_commit(tmp_path / "inner") is None
    (tmp_path / "file").write_text("2")
    assert git_commit(tmp_path) == f"{commit}-dirty"
