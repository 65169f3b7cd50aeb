"""What a run says of its data before it begins, and the classes that it is told to train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.files import write_json
from tests.end_to_end.conftest import World, read_json, read_lines, train_into

ANNOTATIONS = Path("annotations/instances_train.json")


def all_crowd(row: dict[str, Any]) -> None:
    row["iscrowd"] = 1


def relative(row: dict[str, Any]) -> None:
    row["bbox"] = [value / side for value, side in zip(row["bbox"], (128, 96, 128, 96), strict=True)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (all_crowd, "error: there is no box to train on: data set fabric_train: all "),
        (relative, "error: data set fabric_train: 21 of 21 boxes lie between 0 and 1: they are relative"),
    ],
)
def test_training_on_nothing_is_an_error(
    world: World, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    spoilt = world.copy(tmp_path / "data")
    data = read_json(spoilt.root / ANNOTATIONS)
    for row in data["annotations"]:
        spoil(row)
    write_json(spoilt.root / ANNOTATIONS, data)
    done = spoilt.train("OUTPUT_DIR", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and errors[0].startswith(message)
    assert [path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")] == ["log.txt"]


def test_a_run_begins_with_a_summary_of_its_data(trained: Any, world: World) -> None:
    data = read_json(world.root / ANNOTATIONS)
    first = read_lines(trained.folder / "metrics.jsonl")[0]
    summary = first["data"]["fabric_train"]
    assert first["iteration"] == 0 and summary["num_images"] == 12
    assert sum(summary["boxes"].values()) + summary["ignore_regions"] == len(data["annotations"])
    log = (trained.folder / "log.txt").read_text()
    assert "data set fabric_train: 12 images" in log and "data set fabric_val: 7 images" in log


def test_some_classes_of_a_file_are_trained_and_tested(world: World, tmp_path: Path) -> None:
    names = [row["name"] for row in read_json(world.root / ANNOTATIONS)["categories"]]
    chosen = (names[3], names[0])
    run = train_into(world, tmp_path / "run", "DATASETS.CLASSES", chosen, "DATASETS.OTHER_CLASSES", "ignore")
    saved = torch.load(run.model, weights_only=True)
    assert tuple(saved["class_names"]) == chosen
    assert tuple(read_json(run.inference / "metrics.json")["per_class"]) == chosen
    assert tuple(read_json(run.inference / "thresholds.json")["classes"]) == chosen
    again = world.test("MODEL.WEIGHT", run.model, "DATASETS.CLASSES", chosen, "OUTPUT_DIR", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    wrong = world.test("MODEL.WEIGHT", run.model, "DATASETS.CLASSES", ("knott",), "OUTPUT_DIR", tmp_path / "wrong")
    assert wrong.returncode == 2 and "'knott' is not a class of the model; did you mean knot?" in wrong.stderr
