"""`tools/predict.py` as users start, kill and restart it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine import Predictor
from tests.end_to_end.conftest import NUM_VAL, Trained, World, read_json, read_lines, run, several_processes, start

TOOL = "tools/predict.py"


@pytest.fixture(scope="module")
def images(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images, one of which cannot be read."""
    folder = tmp_path_factory.mktemp("predict") / "images"
    folder.mkdir()
    source = sorted((world.root / "val").glob("*.jpg"))
    for number in range(29):
        image = cv2.imread(str(source[number % NUM_VAL]))
        cv2.imwrite(str(folder / f"{number:02d}.png"), np.roll(image, number, 1))
    (folder / "17 text.jpg").write_text("no image")
    return folder


def command(world: World, trained: Trained, *options: str | Path) -> list[str | Path]:
    return world.command(TOOL, "--weights", trained.model, *options)


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0 and process.stderr == "", process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def whole(world: World, trained: Trained, images: Path) -> Path:
    """An uninterrupted run of one process over all images."""
    out = images.parent / "whole"
    text = done(
        run(command(world, trained, "--input", images, "--output-dir", out, "--save", "csv", "--score-thr", "0.1"))
    )
    assert "29 images in " in text and "1 unreadable skipped: " in text and "ms (p99)" in text
    return out


def test_records_are_what_the_predictor_finds(world: World, trained: Trained, images: Path, whole: Path) -> None:
    records = read_lines(whole / "predictions.jsonl")
    paths = sorted(images.iterdir())
    assert [record["image"] for record in records] == [str(path) for path in paths]
    predict = Predictor(world.config, trained.model, threshold=0.1)
    for path, record in zip(paths, records, strict=True):
        if path.suffix == ".jpg":
            assert "not an image" in record["error"]
            continue
        found = predict(path)
        assert [each["score"] for each in record["detections"]] == pytest.approx(found.scores.tolist(), abs=1e-5)
        assert [each["box"] for each in record["detections"]] == pytest.approx(np.asarray(found.boxes), abs=1e-3)
        assert [each["class"] for each in record["detections"]] == [predict.class_names[k] for k in found.labels]
    assert sum(len(record.get("detections", [])) for record in records) > 29


def killed(process: subprocess.Popen[str], number: int, records: Path, least: int = 3) -> tuple[int, int]:
    """Send a signal once there are so many records; returns the exit code and the number of records then."""
    deadline = time.monotonic() + 120
    while not records.exists() or records.read_bytes().count(b"\n") < least:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=60)
    return process.returncode, records.read_bytes().count(b"\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)])
def test_a_killed_run_goes_on(
    world: World, trained: Trained, images: Path, whole: Path, tmp_path: Path, number: int, code: int
) -> None:
    out = tmp_path / "out"
    words = command(world, trained, "--input", images, "--output-dir", out, "--score-thr", "0.1", "--save", "page,csv")
    process = start(words)
    ended, count = killed(process, number, out / "predictions.jsonl")
    assert ended == code and 3 <= count < 30
    again = run(words)
    assert again.returncode == 2 and "add --resume to go on with it" in again.stderr
    text = done(run([*words[:3], "--resume", *words[3:]]))
    assert f"{sum(1 for _ in images.iterdir()) - count - (count <= 17)} images in" in text
    for name in ("predictions.jsonl", "predictions.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert len(list((out / "thumbnails").iterdir())) == 29
    text = done(run([*words[:3], "--resume", *words[3:]]))
    assert "nothing left to do" in text


def test_two_runs_at_once(world: World, trained: Trained, tmp_path: Path) -> None:
    """The first watches a folder, which lasts."""
    (tmp_path / "in").mkdir()
    shutil.copy(sorted((world.root / "val").glob("*.jpg"))[0], tmp_path / "in")
    out = tmp_path / "out"
    words = command(world, trained, "--input", tmp_path / "in", "--watch", "--output-dir", out)
    process = start(words)
    deadline = time.monotonic() + 120
    while not (out / "predictions.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    other = run([*words[:3], "--resume", *words[3:]])
    assert other.returncode == 2 and "is in use by another run" in other.stderr and len(other.stderr.splitlines()) == 1
    assert killed(process, signal.SIGINT, out / "predictions.jsonl", least=1) == (75, 1)
    shutil.copy(sorted((world.root / "val").glob("*.jpg"))[1], tmp_path / "in")
    text = done(run([*words[:3], "--resume", "--timeout", "1", *words[3:]]))
    assert "watching " in text and "1 images in" in text
    assert len({record["image"] for record in read_lines(out / "predictions.jsonl")}) == 2


def test_several_processes_give_the_same_file(
    world: World, trained: Trained, images: Path, whole: Path, tmp_path: Path
) -> None:
    options = ["--input", images, "--score-thr", "0.1", "--save", "csv", "--output-dir"]
    front = several_processes("torchrun")
    launched = run([*front, *command(world, trained, *options, tmp_path / "torchrun", "--shards")])
    assert launched.returncode == 0, launched.stderr
    for part in ("1/3", "3/3", "2/3"):
        assert not (tmp_path / "by hand" / "predictions.jsonl").exists()
        done(run(command(world, trained, *options, tmp_path / "by hand", "--shard", part)))
    for folder in ("torchrun", "by hand"):
        for name in ("predictions.jsonl", "predictions.csv"):
            assert (tmp_path / folder / name).read_bytes() == (whole / name).read_bytes(), (folder, name)
    text = done(run(command(world, trained, *options, tmp_path / "by hand", "--shard", "2/3", "--resume")))
    assert "nothing left to do" in text
    refused = run(
        command(
            world, trained, *options, tmp_path / "by hand", "--shard", "2/3", "--resume", "INPUT.MIN_SIZE_TEST", "64"
        )
    )
    assert refused.returncode == 2 and "is of another run (configuration: " in refused.stderr


def video(path: Path, images: list[Path], rate: float = 12.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (128, 96))
    for image in images:
        writer.write(cv2.imread(str(image)))
    writer.release()
    return path


def test_a_video_of_predict_and_demo(world: World, trained: Trained, images: Path, tmp_path: Path) -> None:
    clip = video(tmp_path / "clip.mp4", sorted(images.glob("*.png"))[:9])
    words = [
        "--input",
        clip,
        "--output-dir",
        tmp_path / "out",
        "--score-thr",
        "0.1",
        "--batch-size",
        "2",
        "--device",
        "cpu",
    ]
    text = done(run(command(world, trained, *words, "--min-image-size", "64")))
    assert "9 frames in" in text
    records = read_lines(tmp_path / "out" / "predictions.jsonl")
    assert [(each["frame"], each["time"], each["size"]) for each in records] == [
        (k, pytest.approx(k / 12, abs=2e-3), [96, 128]) for k in range(9)
    ]
    options = [
        "--weights",
        trained.model,
        "--images-dir",
        clip,
        "--output-dir",
        tmp_path / "demo",
        "--threshold",
        "0.1",
    ]
    assert "9 frames drawn to" in done(run(world.command("demo/atss_demo.py", *options)))
    for path in (tmp_path / "out" / "videos" / "clip.mp4", tmp_path / "demo" / "clip.mp4"):
        capture = cv2.VideoCapture(str(path))
        assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 9 and capture.get(cv2.CAP_PROP_FPS) == 12


MISTAKES: list[tuple[list[str], str]] = [
    (["--input", "nowhere"], "'nowhere': is not a file, a folder or a pattern"),
    (["--input", "."], "holds no images"),
    (["--input", "7"], "7: cannot be opened"),
    (["--input", "0", "rtsp://x"], "has no end"),
    (["--input", ".", "--save", "pictures,cvs"], "--save cvs: there is no such output"),
    (["--input", ".", "--shard", "3/2"], "--shard 3/2: write I/N"),
    (["--input", ".", "--shard", "1/2", "--shards"], "give one of them"),
    (["--input", "nowhere", "--watch"], "--watch takes one folder that exists"),
    (["--input", ".", "--watch", "--shard", "1/2"], "has no parts"),
    (["--input", ".", "--score-thr", "2"], "holds no images"),
    (["--input", ".", "--batch-size", "0"], "TEST.IMS_PER_BATCH"),
]


@pytest.mark.parametrize(("options", "answer"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_mistakes_are_one_line(world: World, trained: Trained, tmp_path: Path, options: list[str], answer: str) -> None:
    words = command(world, trained, *options, "--output-dir", tmp_path / "out")
    failed = run([Path.cwd() / words[0], *words[1:]], cwd=tmp_path)
    assert failed.returncode == 2 and answer in failed.stderr and len(failed.stderr.splitlines()) == 1, failed.stderr
    assert not (tmp_path / "out" / "predictions.jsonl").exists() or not read_lines(
        tmp_path / "out" / "predictions.jsonl"
    )


def test_nothing_readable(world: World, trained: Trained, images: Path, tmp_path: Path) -> None:
    failed = run(command(world, trained, "--input", images / "17 text.jpg", "--output-dir", tmp_path / "out"))
    assert failed.returncode == 2 and "none of the 1 images could be read" in failed.stderr
    assert read_json(tmp_path / "out" / "run.json")["is_complete"] is True


def test_processes_that_would_do_the_same(world: World, trained: Trained, images: Path, tmp_path: Path) -> None:
    words = command(world, trained, "--input", images, "--output-dir", tmp_path / "out")
    failed = run(words, env={"WORLD_SIZE": "2", "RANK": "0", **{k: os.environ[k] for k in ("PATH",)}})
    assert failed.returncode == 2 and "add --shards" in failed.stderr
