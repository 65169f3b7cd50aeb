"""What a run says of itself: the environment, the writers asked for, and `tools/analyze_logs.py` on what it left."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from tests.end_to_end.conftest import Trained, World, read_metrics, run, train_into


def test_a_run_says_what_it_runs_on(trained: Trained) -> None:
    for text in (trained.output, (trained.folder / "log.txt").read_text()):
        assert f"torch {torch.__version__}" in text and "\nGPU: " in text and "\nprocesses: 1, on " in text
        assert text.count("\ncommand: ") == 1 and "tools/train_net.py --config-file" in text


def test_the_environment_alone() -> None:
    done = run(["-m", "engine.environment"])
    assert done.returncode == 0 and done.stderr == ""
    first_words = [line.split()[0] for line in done.stdout.splitlines()]
    assert first_words == ["engine", "CPU:", "GPU:", "processes:", "command:"]


def test_tensorboard_in_a_run_of_two_processes(world: World, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    keys = ["SOLVER.WRITERS", "('tensorboard',)", "DATASETS.VAL", "('fabric_val',)", "SOLVER.VALIDATION.PERIOD", "4"]
    ran = train_into(world, tmp_path / "run", "--skip-test", *keys, "TEST.IMS_PER_BATCH", "2", launcher="torchrun")
    assert len(list((ran.folder / "tensorboard").iterdir())) == 1  # one process writes
    assert "processes: 2, started by torchrun" in ran.output and ran.output.count("\nGPU: ") == 1
    events = accumulator.EventAccumulator(str(ran.folder / "tensorboard")).Reload()
    lines = read_metrics(ran.folder)
    for name in ("loss", "loss_cls", "lr", "fabric_val/AP", "fabric_val/loss"):
        expected = [(line["iteration"], pytest.approx(line[name], rel=1e-6)) for line in lines if name in line]
        assert [(event.step, event.value) for event in events.Scalars(name)] == expected and expected


def test_a_writer_without_its_library_is_one_line(world: World, tmp_path: Path) -> None:
    (tmp_path / "wandb.py").write_text("raise ImportError('not here')")
    command = world.command("tools/train_net.py", "OUTPUT_DIR", tmp_path / "run", "SOLVER.WRITERS", "('wandb',)")
    done = run(command, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "pip install wandb" in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_curves_and_tables_of_two_runs(trained: Trained, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text = (trained.folder / "metrics.jsonl").read_text()
    (other / "metrics.jsonl").write_text(text + '{"iteration": 6, "fabric_val/AP": 0.5}\n{"iterat')
    output = tmp_path / "new" / "curves.png"
    done = run(["tools/analyze_logs.py", trained.folder, other, "--output", output])
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[2:4]] == [["run", "6"], ["other", "6"]]
    assert "fabric_val/AP" in done.stdout and f"curves: {output}" in done.stdout
    picture = cv2.imread(str(output))
    assert picture.shape[1] == 1280 and picture.std() > 10
