"""12-bit images: one range of values from the measurement in training to the Predictor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from engine import Predictor
from engine.checkpoint import io
from engine.checkpoint.average import average
from tests.end_to_end.conftest import Trained, World, read_json, run, train_into

IMAGES = {
    "INPUT.PIXEL_MEAN": (102.9801, 115.9465, 122.7717),
    "INPUT.PIXEL_STD": (1.0, 1.0, 1.0),
    "INPUT.TO_BGR255": True,
}
SCALED = "{} becomes 0..255"


@pytest.fixture(scope="module")
def deep(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The images of `world` as 12 of the 16 bits of PNGs, not from 0 to 4095."""
    copy = world.copy(tmp_path_factory.mktemp("deep") / "data")
    for part in ("train", "val"):
        ann_file = copy.root / "annotations" / f"instances_{part}.json"
        ann_file.write_text(json.dumps(json.loads(ann_file.read_text())).replace(".jpg", ".png"))
        for path in (copy.root / part).glob("*.jpg"):
            grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(path.with_suffix(".png")), grey.astype(np.uint16) * 14 + 300)
            path.unlink()
    return copy


@pytest.fixture(scope="module")
def trained_deep(deep: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_into(deep, tmp_path_factory.mktemp("trained_deep") / "run")


def range_in(folder: Path) -> tuple[float, float]:
    return tuple(yaml.safe_load((folder / "config.yaml").read_text())["INPUT"]["VALUE_RANGE"])


def test_the_range_is_measured_and_kept(deep: World, trained_deep: Trained) -> None:
    values = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (deep.root / "train").glob("*.png")]
    measured = float(min(each.min() for each in values)), float(max(each.max() for each in values))
    assert range_in(trained_deep.folder) == measured
    content = io.load(trained_deep.model)
    assert content["conventions"] == {**IMAGES, "INPUT.VALUE_RANGE": measured}
    assert average([trained_deep.model])["conventions"] == content["conventions"]
    assert trained_deep.output.count(SCALED.format("")) == 1 and trained_deep.errors == ""


def test_testing_and_predictor_use_it(deep: World, trained_deep: Trained, tmp_path: Path) -> None:
    done = deep.test("MODEL.WEIGHT", trained_deep.model, "OUTPUT_DIR", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "needs INPUT.VALUE_RANGE" in done.stdout and SCALED.format("") not in done.stdout
    assert read_json(tmp_path / "inference/fabric_val/bbox.json") == read_json(trained_deep.inference / "bbox.json")
    predict = Predictor(deep.config, trained_deep.model, threshold=0.0)
    assert predict.reading.value_range == range_in(trained_deep.folder)
    path = sorted((deep.root / "val").glob("*.png"))[0]
    array = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert array.dtype == np.uint16
    found = predict([path, array, np.dstack([array] * 3), array.astype(np.float32)])
    assert len(found[0]) and all(torch.equal(each.boxes, found[0].boxes) for each in found)


def test_resuming_keeps_it(deep: World, trained_deep: Trained, tmp_path: Path) -> None:
    changed = deep.copy(tmp_path / "data")
    for path in (changed.root / "train").glob("*.png"):  # a measurement would now find another range
        cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * 3)
    shutil.copytree(trained_deep.folder, tmp_path / "run")
    (tmp_path / "run" / "last_checkpoint").write_text("model_0000004.pth")
    done = changed.train("--skip-test", "--resume", "OUTPUT_DIR", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    low, high = range_in(trained_deep.folder)
    assert range_in(tmp_path / "run") == (low, high) and SCALED.format(f"{low:g}..{high:g}") in done.stdout
    assert "resuming from" in done.stdout and "changed since that checkpoint: INPUT" not in done.stdout
    assert io.load(tmp_path / "run" / "model_final.pth")["conventions"] == {**IMAGES, "INPUT.VALUE_RANGE": (low, high)}


def test_two_processes_have_one_range(deep: World, trained_deep: Trained, tmp_path: Path) -> None:
    both = train_into(deep, tmp_path / "run", "--skip-test", "SOLVER.MAX_ITER", "1", launcher="torchrun")
    assert range_in(both.folder) == range_in(trained_deep.folder)
    assert both.output.count(SCALED.format("")) == 1


def test_pictures_use_it(deep: World, trained_deep: Trained, tmp_path: Path) -> None:
    """Not nearly black: what the demo and the tool for data sets draw has the contrast of the network's input."""
    options = ["--weights", trained_deep.model, "--images-dir", deep.root / "val", "--output-dir", tmp_path / "demo"]
    done = run(deep.command("demo/atss_demo.py", *options, "--threshold", "0.999"))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    options = ["--dataset", "fabric_val", "--num-images", "0", "--output-dir", tmp_path / "drawn"]
    done = run(deep.command("tools/draw_dataset.py", *options))
    assert done.returncode == 0 and SCALED.format("") in done.stdout, done.stderr
    low, high = range_in(trained_deep.folder)
    for path in sorted((deep.root / "val").glob("*.png")):
        expected = np.rint((cv2.imread(str(path), cv2.IMREAD_UNCHANGED) - low) * 255 / (high - low)).clip(0, 255)
        assert (cv2.imread(str(tmp_path / "demo" / path.name))[..., 0] == expected).mean() > 0.9
    pictures = list((tmp_path / "drawn" / "fabric_val").iterdir())
    assert len(pictures) == 7 and all(np.ptp(cv2.imread(str(path))) > 150 for path in pictures)


@pytest.mark.nightly
def test_augmented_testing_by_workers_is_the_same(deep: World, trained_deep: Trained, tmp_path: Path) -> None:
    """The images travel as floats in 0..255 from a worker, and together with ones of 8 bits."""
    mixed = deep.copy(tmp_path / "data")
    path = sorted((mixed.root / "val").glob("*.png"))[2]
    cv2.imwrite(str(path), (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 16).astype(np.uint8))
    options = ["MODEL.WEIGHT", trained_deep.model, "TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.H_FLIP", "True"]
    results = []
    for number, keys in enumerate((["TEST.IMS_PER_BATCH", "1"], ["DATALOADER.NUM_WORKERS", "1"])):
        done = mixed.test(*options, *keys, "OUTPUT_DIR", tmp_path / f"{number}")
        assert done.returncode == 0 and "rror" not in done.stderr, done.stderr
        results.append(read_json(tmp_path / f"{number}" / "inference/fabric_val/bbox.json"))
    assert len(results[0]) and results[0] == results[1]
