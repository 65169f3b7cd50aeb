"""Two workers of Ray give the file that tools/predict.py gives, also when one of them is killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import REPOSITORY, Trained, World, run, start

PROGRAM = """
import os, sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from engine.assembly.detector import Predictor
from engine.config import load_config
from engine.inference.ray_pipeline import Cluster, detect_on_ray

config, weights, images, output, marker = sys.argv[1:]
cfg = load_config(config, [])


def build():
    predictor = Predictor(cfg, weights, 0.05)
    run = predictor.run

    def killed_once(inputs):
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return run(inputs)
        os.kill(os.getpid(), 9)

    predictor.run = killed_once
    return predictor


places = sorted(str(path) for path in Path(images).iterdir())
detect_on_ray(build, Predictor(cfg, weights).reading, places, Path(output), Cluster(workers=2, cpus=1))
"""


PATIENCE = 900
"""Seconds; on a busy machine Ray and its workers, which all import torch, take minutes to start."""


def run_to_its_end(command: list[str | Path]) -> None:
    process = start(command)
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, output + errors


@pytest.fixture
def images(world: World, tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    shutil.copytree(world.root / "val", folder)
    (folder / "broken.jpg").write_text("no image")
    return folder


@pytest.fixture
def expected(world: World, trained: Trained, images: Path, tmp_path: Path) -> bytes:
    model = ["--config-file", world.config, "--weights", trained.model, "--score-thr", "0.05"]
    folder = tmp_path / "plain"
    done = run(["tools/predict.py", *model, "--input", images, "--output-dir", folder, "--save", "jsonl"])
    assert done.returncode == 0, done.stderr
    lines = (folder / "predictions.jsonl").read_bytes()
    assert lines.count(b"\n") == 8 and lines.count(b'"error"') == 1 and lines.count(b'"score"') > 8
    return lines


@pytest.mark.nightly
def test_the_file_is_that_of_predict(world: World, trained: Trained, images: Path, expected: bytes, tmp_path: Path):
    pytest.importorskip("ray")
    pq = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "out"
    model = ["--config-file", world.config, "--weights", trained.model, "--score-thr", "0.05"]
    command = ["tools/predict_ray.py", *model, "--images", images, "--output-dir", output, "--cpus", "1"]
    run_to_its_end(command)
    assert (output / "predictions.jsonl").read_bytes() == expected
    assert pq.read_table(output / "predictions.parquet").num_rows == 8
    again = run(command)
    assert again.returncode == 2 and again.stderr.startswith(f"error: {output}: exists already")


@pytest.mark.nightly
def test_a_killed_worker_is_replaced(world: World, trained: Trained, images: Path, expected: bytes, tmp_path: Path):
    pytest.importorskip("ray")
    program, output, marker = tmp_path / "program.py", tmp_path / "out", tmp_path / "killed"
    program.write_text(PROGRAM.format(repository=str(REPOSITORY)))
    run_to_its_end([program, world.config, trained.model, images, output, marker])
    assert marker.exists()
    assert (output / "predictions.jsonl").read_bytes() == expected
