"""`tools/test_net.py` and `tools/evaluate_results.py`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engine.checkpoint import io
from tests.end_to_end.conftest import Trained, World, read_json, run


def test_without_weights_it_is_one_line(world: World, tmp_path: Path) -> None:
    done = world.test("OUTPUT_DIR", tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "MODEL.WEIGHT" in done.stderr


@pytest.fixture(scope="module")
def tested(world: World, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A copy of the model tested again, thresholds written, with other categories ids in another order."""
    changed = world.copy(tmp_path_factory.mktemp("tested") / "world")
    file = changed.root / "annotations" / "instances_val.json"
    data = read_json(file)
    for category in data["categories"]:
        category["id"] = 100 - 7 * category["id"]
    for box in data["annotations"]:
        box["category_id"] = 100 - 7 * box["category_id"]
    file.write_text(json.dumps(data))
    folder = changed.root.parent / "run"
    folder.mkdir()
    model = shutil.copy(trained.model, folder / "copy.pth")
    done = changed.test("--write-thresholds", "MODEL.WEIGHT", model, "OUTPUT_DIR", folder, "TEST.THRESHOLD_IOU", "0.3")
    assert done.returncode == 0, done.stderr
    return Trained(folder, done.stdout, done.stderr)


def test_class_names_come_from_the_checkpoint(trained: Trained, tested: Trained) -> None:
    """Labels follow the names, whatever ids and order the annotation file has."""
    expected = read_json(trained.inference / "bbox.json")
    results = read_json(tested.inference / "bbox.json")
    assert [{**r, "category_id": (100 - r["category_id"]) // 7} for r in results] == expected
    metrics = read_json(tested.inference / "metrics.json")
    assert metrics["bbox"] == read_json(trained.inference / "metrics.json")["bbox"]
    assert list(metrics["per_class"]) == ["hole", "stain", "broken_thread", "knot", "float"]


def test_thresholds_are_written_when_asked_for(trained: Trained, tested: Trained) -> None:
    stored = io.load(tested.folder / "copy.pth")["thresholds"]
    assert stored == read_json(tested.inference / "thresholds.json") and stored["iou"] == 0.3
    assert io.load(trained.model)["thresholds"]["iou"] == 0.5
    assert tested.errors == ""


def test_a_model_that_detects_nothing(world: World, trained: Trained, tmp_path: Path) -> None:
    done = world.test("MODEL.WEIGHT", trained.model, "OUTPUT_DIR", tmp_path, "MODEL.ATSS.INFERENCE_TH", "0.99")
    assert done.returncode == 0 and done.stderr == ""
    folder = tmp_path / "inference" / "fabric_val"
    assert read_json(folder / "bbox.json") == []
    assert read_json(folder / "metrics.json")["bbox"]["AP"] == 0
    for entry in read_json(folder / "thresholds.json")["classes"].values():
        assert entry["threshold"] is None and entry["reason"]


def test_evaluate_results_gives_the_same_figures(world: World, trained: Trained, tmp_path: Path) -> None:
    results = trained.inference / "bbox.json"
    command = world.command("tools/evaluate_results.py", "--results", results, "--output-dir", tmp_path)
    done = run(command)
    assert done.returncode == 0 and done.stderr == ""
    for name in ("metrics", "thresholds"):
        assert read_json(tmp_path / f"{name}.json") == read_json(trained.inference / f"{name}.json")


def test_a_test_set_of_other_classes_is_one_line(world: World, trained: Trained, tmp_path: Path) -> None:
    changed = world.copy(tmp_path / "world")
    file = changed.root / "annotations" / "instances_val.json"
    file.write_text(file.read_text().replace('"knot"', '"tangle"'))
    done = changed.test("MODEL.WEIGHT", trained.model, "OUTPUT_DIR", tmp_path / "run")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "tangle" in done.stderr
    # ... and before training, not after it
    done = changed.train("OUTPUT_DIR", tmp_path / "train")
    assert done.returncode == 2 and "tangle" in done.stderr and "iter " not in done.stdout
