"""Training with `DATASETS.VAL`: what it logs and keeps, going on, ending early, several processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import io, store_thresholds
from tests.end_to_end.conftest import NUM_VAL, Trained, World, read_json, read_metrics, train_into

VALIDATED = [
    *("DATASETS.VAL", "('fabric_val',)", "SOLVER.VALIDATION.PERIOD", "2", "SOLVER.EMA_DECAY", "0.5"),
    *("SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.KEEP_CHECKPOINTS", "3"),
]
STILL = [  # nothing is learned, so no validation is better than the first
    *("DATASETS.VAL", "('fabric_val',)", "SOLVER.VALIDATION.PERIOD", "1", "SOLVER.VALIDATION.PATIENCE", "2"),
    *("SOLVER.BASE_LR", "0.0"),
]


def _validations(folder: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(folder) if "lr" not in line]


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """As the run without validation, but for the average of the weights, tested."""
    return train_into(world, tmp_path_factory.mktemp("validated") / "run", *VALIDATED)


@pytest.fixture(scope="module")
def still(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_into(world, tmp_path_factory.mktemp("still") / "run", "--skip-test", *STILL)


def test_figures_are_those_of_the_test(run: Trained) -> None:
    validations = _validations(run.folder)
    assert [line["iteration"] for line in validations] == [2, 4, 6]
    tested = read_json(run.inference / "metrics.json")["bbox"]
    defined = {f"fabric_val/{name}": value for name, value in tested.items() if value != -1}
    assert defined.items() <= validations[-1].items() and "fabric_val/AP" in defined
    parts = [validations[-1][f"fabric_val/loss_{name}"] for name in ("cls", "reg", "centerness")]
    assert validations[-1]["fabric_val/loss"] == pytest.approx(sum(parts)) and min(parts) > 0
    assert run.output.count("validation at iteration") == 3 and run.errors == ""


def test_training_is_not_disturbed(run: Trained, trained: Trained) -> None:
    weights, expected = io.load(run.model)["training_model"], io.load(trained.model)["model"]
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_best_and_newest_checkpoints(run: Trained) -> None:
    values = {line["iteration"]: line["fabric_val/AP"] for line in _validations(run.folder)}
    best = io.load(run.folder / "model_best.pth")
    assert best["iteration"] == max(values, key=values.get)
    assert best["thresholds"]["classes"].keys() == set(best["class_names"])
    kept = {f"model_000000{i}.pth" for i in (4, 5, 6)} | {"model_best.pth", "model_final.pth"}
    assert {path.name for path in run.folder.glob("*.pth")} == kept
    assert (run.folder / "last_checkpoint").read_text() == "model_final.pth"
    assert f"at iteration {best['iteration']}, {run.folder}/model_best.pth" in run.output


def test_resumed_equals_uninterrupted(world: World, run: Trained, tmp_path: Path) -> None:
    """Killed in iteration 6, the best one already written."""
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    for name in ("model_0000005.pth", "model_0000006.pth", "model_final.pth"):
        (folder / name).unlink()
    (folder / "last_checkpoint").write_text("model_0000004.pth")
    done = world.train("--resume", "--skip-test", "OUTPUT_DIR", folder, *VALIDATED)
    assert done.returncode == 0 and "iteration 4 of 6" in done.stdout, done.stderr
    assert _validations(folder) == _validations(run.folder)
    for name in ("model_best.pth", "model_final.pth"):
        ours, theirs = (io.load(path / name) for path in (folder, run.folder))
        assert ours["iteration"] == theirs["iteration"] and ours["hooks"] == theirs["hooks"]
        assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in theirs["model"])


def test_patience(world: World, still: Trained) -> None:
    assert [line["iteration"] for line in _validations(still.folder)] == [1, 2, 3]
    assert io.load(still.model)["iteration"] == 3 and io.load(still.folder / "model_best.pth")["iteration"] == 1
    ending = "training ends at iteration 3: 2 validations without a better AP"
    assert ending in still.output
    store_thresholds(still.model, {"classes": {}})  # as its test would have
    again = world.train("--resume", "--skip-test", "OUTPUT_DIR", still.folder, *STILL)
    assert again.returncode == 0 and ending in again.stdout, again.stderr
    kept = io.load(still.model)
    assert len(_validations(still.folder)) == 3 and kept["iteration"] == 3 and kept["thresholds"] == {"classes": {}}


def test_two_processes_validate_as_one(world: World, still: Trained, tmp_path: Path) -> None:
    """They share an odd number of images, and with them what each has learned: nothing."""
    assert NUM_VAL % 2
    both = train_into(world, tmp_path / "run", "--skip-test", *STILL, launcher="torchrun")
    assert _validations(both.folder) == _validations(still.folder)
    assert len(_validations(both.folder)) == 3 and both.output.count("training ends at iteration 3") == 1


def test_mistakes_are_said_before_the_training(world: World, tmp_path: Path) -> None:
    data = read_json(world.root / "annotations" / "instances_val.json")
    data["categories"][0]["name"] = "crack"
    (tmp_path / "val.json").write_text(json.dumps(data))
    entry = {"img_dir": "val", "ann_file": str(tmp_path / "val.json")}
    keys = ["DATASETS.CATALOG", str({"mine": entry}), "DATASETS.VAL", "('mine',)", "DATASETS.TEST", "()"]
    done = world.train("OUTPUT_DIR", tmp_path / "run", *keys)
    assert done.returncode == 2 and "classes that are not trained: 'crack'" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "iter " not in done.stdout


def test_statistics_of_norms_are_those_of_the_checkpoint(world: World, tmp_path: Path) -> None:
    """Each of two processes has seen other images; a test of the file by one process must find what they found."""
    keys = ["MODEL.RESNETS.NORM", "BN", "SOLVER.MAX_ITER", "2", "DATASETS.VAL", "('fabric_val',)"]
    run = train_into(world, tmp_path / "run", *keys, launcher="launch")
    both, (validation,) = read_json(run.inference / "metrics.json"), _validations(run.folder)
    results = read_json(run.inference / "bbox.json")
    done = world.test("MODEL.WEIGHT", run.model, "OUTPUT_DIR", tmp_path / "alone", *keys)
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "alone" / "inference" / "fabric_val" / "bbox.json") == results and results
    assert validation["fabric_val/AP"] == both["bbox"]["AP"]
