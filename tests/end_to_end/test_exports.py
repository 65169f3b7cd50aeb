"""Files as labelling tools write them, from training to the figures of a results file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Trained, World, read_json, run, train_into


def as_exported(data: dict[str, Any], folder: str) -> dict[str, Any]:
    """The same images and boxes as a labelling tool might write them: ids of another kind, other spellings."""
    text_id = {row["id"]: f"cat-{row['name']}" for row in data["categories"]}
    uuid = {row["id"]: 2**120 + row["id"] for row in data["images"]}
    images = [
        row | {"id": uuid[row["id"]], "file_name": f"{folder}\\{row['file_name']} ", "height": str(row["height"])}
        for row in data["images"]
    ]
    annotations = []
    for number, row in enumerate(data["annotations"]):
        x, y, width, height = row["bbox"]
        box = {"segmentation": [[x, y, x + width, y + height]]} if number % 2 else {"bbox": [str(x), y, width, height]}
        ids = {"id": str(number), "image_id": str(uuid[row["image_id"]]), "category_id": text_id[row["category_id"]]}
        annotations.append(ids | box | {"iscrowd": "0", "ignore": 0, "attributes": {}})
    categories = [
        {"id": text_id[row["id"]], "name": f"{row['name']} ", "supercategory": "fabric"} for row in data["categories"]
    ]
    placeholder = {"id": "0", "name": "fabric", "supercategory": "none"}
    return {"images": [*images, images[0]], "categories": [placeholder, *categories], "annotations": annotations}


@pytest.fixture(scope="module")
def exported(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    changed = world.copy(tmp_path_factory.mktemp("exported") / "world")
    for split in ("train", "val"):
        path = changed.root / "annotations" / f"instances_{split}.json"
        path.write_text(json.dumps(as_exported(read_json(path), split)), encoding="utf-8")
    return changed


@pytest.fixture(scope="module")
def run_of_export(exported: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    # With a worker: it is sent the names that were found, and has nothing to say of its own.
    return train_into(exported, tmp_path_factory.mktemp("export") / "run", "DATALOADER.NUM_WORKERS", "1")


def test_an_export_is_trained_on_like_the_plain_file(run_of_export: Trained, trained: Trained) -> None:
    ours, plain = (read_json(each.inference / "metrics.json") for each in (run_of_export, trained))
    assert ours["per_class"].keys() == plain["per_class"].keys() and "fabric" not in ours["per_class"]
    assert {name: row["num_gt"] for name, row in ours["per_class"].items()} == {
        name: row["num_gt"] for name, row in plain["per_class"].items()
    }
    assert ours["num_images"] == plain["num_images"] and not ours["skipped_images"]


def test_what_was_read_otherwise_is_said_once(run_of_export: Trained) -> None:
    log = (run_of_export.folder / "log.txt").read_text(encoding="utf-8")
    of_train = [line for line in log.splitlines() if "instances_train.json" in line]
    assert len(of_train) == 4
    for words in (
        "category '0' 'fabric' is left out",
        "'hole ' as 'hole'",
        "read as one image with it: 1",
        "segmentation",
    ):
        assert sum(words in line for line in of_train) == 1, words
    assert log.count("fabric_train: 12 of 12 file names are spelled differently") == 1


def test_its_results_have_the_ids_of_the_file(exported: World, run_of_export: Trained, tmp_path: Path) -> None:
    results = read_json(run_of_export.inference / "bbox.json")
    truth = read_json(exported.root / "annotations" / "instances_val.json")
    assert results and {row["image_id"] for row in results} <= {row["id"] for row in truth["images"]}
    assert {row["category_id"] for row in results} <= {row["id"] for row in truth["categories"]} - {"0"}
    path = run_of_export.inference / "bbox.json"
    done = run(exported.command("tools/evaluate_results.py", "--results", path, "--output-dir", tmp_path))
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "metrics.json") == read_json(run_of_export.inference / "metrics.json")


def test_a_file_that_cannot_be_held_is_one_line(exported: World, tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    data = (exported.root / "annotations" / "instances_train.json").read_text(encoding="utf-8")
    path.write_text(data[:-1] + ', "info": ' + "[" * 100_000 + "]" * 100_000 + "}")
    catalog = {"deep": {"img_dir": "train", "ann_file": str(path)}}
    options = ["OUTPUT_DIR", tmp_path / "run", "DATASETS.TRAIN", "('deep',)", "DATASETS.CATALOG", str(catalog)]
    done = exported.train("--skip-test", *options)
    assert done.returncode == 2 and done.stderr == f"error: {path}: {done.stderr.partition('.json: ')[2]}"
    assert "nested too deeply" in done.stderr and len(done.stderr.splitlines()) == 1
