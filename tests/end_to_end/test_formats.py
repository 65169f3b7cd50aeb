"""A training and a test on data sets that are not COCO files: the same bits as from the COCO files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from engine.checkpoint import io
from engine.data.formats import coco
from engine.data.formats.conversion import convert
from tests.end_to_end.conftest import Trained, World, read_json, train_into


@pytest.fixture(scope="module")
def from_voc(world: World, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained on VOC files, tested on YOLO files of the same boxes."""
    folder = tmp_path_factory.mktemp("formats")
    entries = {}
    for part, kind in (("train", "voc"), ("val", "yolo")):
        table = coco.read(world.root / "annotations" / f"instances_{part}.json")
        done = convert(table, folder / part, kind, world.root / part)
        entries[f"fabric_{part}"] = {"img_dir": part, "ann_file": str(done.ann_file)}
    keys = ["DATASETS.CATALOG", str(entries), "TEST.RESULT_FORMATS", "('competition', 'csv')"]
    return train_into(world, folder / "run", *keys, "TEST.RESULT_MIN_SCORE", "0.01")


def test_the_same_model_and_results(trained: Trained, from_voc: Trained) -> None:
    models = [io.load(run.model)["model"] for run in (trained, from_voc)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    metrics = [read_json(run.inference / "metrics.json") for run in (trained, from_voc)]
    assert metrics[0]["bbox"] == metrics[1]["bbox"] and not from_voc.errors


def test_result_files(from_voc: Trained) -> None:
    entries = read_json(from_voc.inference / "result.json")
    results = [row for row in read_json(from_voc.inference / "bbox.json") if row["score"] >= 0.01]
    assert len(entries) == len(results) > 0
    for entry, result in zip(entries, results, strict=True):
        x, y, width, height = result["bbox"]
        assert entry["bbox"] == pytest.approx([x, y, x + width, y + height], abs=1e-4)
        assert entry["score"] == pytest.approx(result["score"]) and entry["name"].endswith(".jpg")
    with (from_voc.inference / "result.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["name"], float(row["xmin"])) for row in csv.DictReader(file)] == [
            (entry["name"], entry["bbox"][0]) for entry in entries
        ]


def test_a_format_that_is_none_is_one_line(world: World, tmp_path: Path) -> None:
    done = world.train("OUTPUT_DIR", tmp_path / "run", "DATASETS.CATALOG.fabric_train.format", "vocs")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "format" in done.stderr and "did you mean voc?" in done.stderr
