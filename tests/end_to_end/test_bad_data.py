"""Faulty data sets: one line and exit code 2, or, where it is only an image, a warning and on with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import NUM_VAL, Trained, World, read_json, read_metrics, run, train_into


def _catalog(**entry: str) -> list[str]:
    """Options that declare and train on `parts-2`: a data set named on the command line, without "coco" in it."""
    paths = {"img_dir": "train", "ann_file": "annotations/instances_train.json", **entry}
    return ["DATASETS.TRAIN", "('parts-2',)", "DATASETS.CATALOG", str({"parts-2": paths})]


def _wrong_annotation(world: World, folder: Path, **change: Any) -> Path:
    data = read_json(world.root / "annotations" / "instances_train.json")
    data["annotations"][2].update(id=4711, **change)
    path = folder / "wrong.json"
    path.write_text(json.dumps(data))
    return path


def test_missing_files_and_ids_are_one_line(world: World, tmp_path: Path) -> None:
    wrong_image = _wrong_annotation(world, tmp_path, image_id=999)
    cases = [
        (_catalog(ann_file="annotations/none.json"), ["parts-2", "annotation file", "annotations/none.json"]),
        (_catalog(img_dir="trian"), ["parts-2", "image folder", "trian"]),
        (_catalog(ann_file=str(wrong_image)), ["wrong.json", "4711", "image_id 999"]),
        (["DATASETS.TRAIN", "('fabric_tran',)"], ["fabric_tran", "did you mean fabric_train"]),
        (["MODEL.ATSS.NUM_CLASSES", "81"], ["MODEL.ATSS.NUM_CLASSES is 81", "5 classes", "set it to 6"]),
        (["DATASETS.TEST", "('fabric_vall',)"], ["fabric_vall", "did you mean fabric_val"]),
        (["IMPORTS", "('nobody_has_this',)"], ["IMPORTS", "nobody_has_this"]),
        (["SOLVER.MAX_ITER", "0"], ["SOLVER.MAX_ITER is 0"]),
    ]
    for options, words in cases:
        done = world.train("OUTPUT_DIR", tmp_path / "run", *options)
        assert done.returncode == 2, (options, done.stderr)
        assert len(done.stderr.splitlines()) == 1 and "iter " not in done.stdout, (options, done.stderr)
        assert all(word in done.stderr for word in words), (options, done.stderr)


def test_unknown_category_is_one_line(world: World, tmp_path: Path) -> None:
    path = _wrong_annotation(world, tmp_path, category_id=77)
    done = world.train("OUTPUT_DIR", tmp_path / "run", *_catalog(ann_file=str(path)))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in ("wrong.json", "4711", "category_id 77"))


# ---------------------------------------------------------------- unreadable images


@pytest.fixture(scope="module")
def damaged(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two training and two test images cannot be read: one truncated and one missing each."""
    changed = world.copy(tmp_path_factory.mktemp("damaged") / "world")
    for split, truncated, missing in (("train", 1, 10), ("val", 0, NUM_VAL - 1)):
        path = changed.root / split / f"{split}_{truncated:05d}.jpg"
        path.write_bytes(path.read_bytes()[:2000])
        (changed.root / split / f"{split}_{missing:05d}.jpg").unlink()
    return changed


@pytest.fixture(scope="module")
def survived(damaged: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained and tested on it by two processes with loader workers; NUM_CLASSES given, the set named as one likes."""
    folder = tmp_path_factory.mktemp("survived") / "run"
    keys = ["MODEL.ATSS.NUM_CLASSES", "6", "DATALOADER.NUM_WORKERS", "1", "TEST.IMS_PER_BATCH", "2"]
    return train_into(damaged, folder, *keys, launcher="torchrun")


def test_training_survives_unreadable_images(survived: Trained) -> None:
    """24 images in 6 iterations are two epochs, so each of the two is met twice, on whichever process."""
    log = (survived.folder / "log.txt").read_text()
    for name, why in (("train_00001.jpg", "truncated"), ("train_00010.jpg", "no such image file")):
        named = [line for line in log.splitlines() if name in line]
        assert len(named) == 1 and why in named[0] and "image id" in named[0]
    assert "2 unreadable image(s) were drawn 4 time(s)" in log
    assert read_metrics(survived.folder)[-1]["skipped_images"] == 4


def test_testing_goes_on_without_unreadable_images(survived: Trained) -> None:
    log = (survived.folder / "log.txt").read_text()
    for name in ("val_00000.jpg", f"val_{NUM_VAL - 1:05d}.jpg"):
        assert sum(name in line for line in log.splitlines()) == 1
    assert f"2 of {NUM_VAL} images cannot be read" in log and "without 2 unreadable images" in log
    metrics = read_json(survived.inference / "metrics.json")
    assert metrics["num_images"] == NUM_VAL - 2 and metrics["skipped_images"] == [1, NUM_VAL]
    assert not {1, NUM_VAL} & {result["image_id"] for result in read_json(survived.inference / "bbox.json")}
    assert re.search(r"fabric_val: 2 of 7", survived.output)


def test_their_boxes_do_not_count(damaged: World, survived: Trained, tmp_path: Path) -> None:
    annotations = read_json(damaged.root / "annotations" / "instances_val.json")["annotations"]
    num_gt = sum(row["image_id"] not in (1, NUM_VAL) for row in annotations)
    metrics = read_json(survived.inference / "metrics.json")
    assert sum(figures["num_gt"] for figures in metrics["per_class"].values()) == num_gt < len(annotations)
    results = survived.inference / "bbox.json"
    done = run(damaged.command("tools/evaluate_results.py", "--results", results, "--output-dir", tmp_path))
    assert done.returncode == 0 and read_json(tmp_path / "metrics.json") == metrics


def test_one_process_gives_the_same(damaged: World, survived: Trained, tmp_path: Path) -> None:
    done = damaged.test("MODEL.WEIGHT", survived.model, "OUTPUT_DIR", tmp_path)
    assert done.returncode == 0
    for name in ("bbox", "metrics"):
        ours = read_json(tmp_path / "inference" / "fabric_val" / f"{name}.json")
        assert ours == read_json(survived.inference / f"{name}.json")


def test_no_readable_test_image_is_one_line(damaged: World, survived: Trained, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    entry = {"img_dir": str(empty), "ann_file": str(damaged.root / "annotations" / "instances_val.json")}
    keys = ["DATASETS.CATALOG", str({"none": entry}), "DATASETS.TEST", "('none',)"]
    done = damaged.test("MODEL.WEIGHT", survived.model, "OUTPUT_DIR", tmp_path, *keys)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"none of its {NUM_VAL} images can be read" in done.stderr
