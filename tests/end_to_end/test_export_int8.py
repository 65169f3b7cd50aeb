"""`tools/export_model.py --precision int8` on a model that was trained for a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import Trained, World, run

for package in ("onnx", "onnxscript", "openvino", "nncf"):
    pytest.importorskip(package)


def test_an_int8_file_is_compared_and_has_its_own_thresholds(world: World, trained: Trained, tmp_path: Path) -> None:
    from engine.runtime.detector import Detector

    output = tmp_path / "model.xml"
    files = ["--weights", trained.model, "--output", output, "--precision", "int8"]
    done = run(world.command("tools/export_model.py", *files))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    table = [line.split() for line in (done.stdout + done.stderr).splitlines() if line.startswith("fabric_val")]
    assert [row[1:3] for row in table] == [["7", "model"], ["7", "model.xml"]]

    # Weights of one byte each, but for those of the predictions.
    num_weights = trained.model.stat().st_size / 4
    assert output.with_suffix(".bin").stat().st_size < 1.5 * num_weights
    card = Detector(output).card
    assert card.facts["precision"] == "int8"
    stored = Detector(output).thresholds
    assert len(stored) == len(card.class_names)


def test_a_file_that_loses_too_much_is_not_written(world: World, trained: Trained, tmp_path: Path) -> None:
    output = tmp_path / "out" / "model.xml"
    files = ["--weights", trained.model, "--output", output, "--precision", "int8", "--images", world.root / "train"]
    done = run(world.command("tools/export_model.py", *files, "--max-drop", "0", "DATASETS.TEST", "()"))
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "the share of detections that differ is" in last
    assert "more than --max-drop 0" in last
    assert not list(tmp_path.rglob("model*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output", "m.onnx", "--precision", "bf16"], "--precision bf16: ONNX Runtime has no bfloat16 kernels"),
        (["--output", "m.onnx", "--precision", "fp16"], "use --format openvino"),
        (["--output", "m.onnx", "--precision", "int8", "DATASETS.TRAIN", "()"], "name a folder with --images"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    world: World, trained: Trained, tmp_path: Path, options: list[str], words: str
) -> None:
    options[1] = str(tmp_path / options[1])
    done = run(world.command("tools/export_model.py", "--weights", trained.model, *options))
    assert done.returncode == 2
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
