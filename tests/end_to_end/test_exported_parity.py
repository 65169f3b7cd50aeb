"""What the commands find with a file that `tools/export_model.py` wrote is what they find with its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine import Predictor, export
from engine.checkpoint import io
from engine.config import load_config
from engine.runtime import Detector
from engine.runtime.card import FixedShape
from engine.runtime.card_file import read_card, write_card
from engine.structures import Detections
from tests.conftest import made_once
from tests.end_to_end.conftest import World, read_json, read_lines, run
from tests.export.lively import SMALL, lively_model
from tests.export.test_parity import compare

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

NAMES = ["hole", "stain", "broken_thread", "knot", "float"]
SIZES = {"INPUT.MIN_SIZE_TEST": "75", "INPUT.MAX_SIZE_TEST": "110"}
"""Images of 96 x 128 are scaled to 75 x 100: sides that are no multiples of what the network pads to."""
TILES = ["TILING.SIZE", "56", "TILING.OVERLAP", "16", "TILING.KEEP_FULL", "True", "TILING.MERGE_TYPE", "soft-vote"]


def lively_world(world: World, folder: Path, **settings: str) -> World:
    """A copy of `world` in `folder`, its configuration with `settings`, and a checkpoint that finds much."""
    overrides = SMALL | SIZES | {"MODEL.ATSS.NUM_CLASSES": str(len(NAMES) + 1)} | settings
    cfg = load_config(world.config, [word for pair in overrides.items() for word in pair])
    config = folder / "lively.yaml"
    config.write_text(cfg.dump(), encoding="utf-8")
    model = lively_model(str(config), num_classes=len(NAMES))
    state = {
        "format": io.FORMAT,
        "model": model.state_dict(),
        "class_names": NAMES,
        "thresholds": {"classes": {"hole": {"threshold": 0.4}, "knot": {"threshold": None}}},
        "conventions": {"INPUT.CHANNELS": cfg.INPUT.CHANNELS},
    }
    io.save(folder / "model.pth", state)
    return World(world.copy(folder / "data").root, config)


@pytest.fixture(scope="module")
def lively(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world with a configuration whose checkpoint, `model.pth` beside it, finds much, and also what is there."""

    def make(folder: Path) -> World:
        made = lively_world(world, folder)
        mark_some_of_the_found(made)
        return made

    return made_once(tmp_path_factory, "lively world", make)


@pytest.fixture(scope="module")
def files(lively: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiled.onnx, and whole.onnx, which differs from it by its card."""

    def make(folder: Path) -> Path:
        tiled = folder / "tiled.onnx"
        # Without test sets, it is tried on noise.
        keys = [*TILES, "DATASETS.TEST", "()"]
        done = run(lively.command("tools/export_model.py", "--weights", checkpoint(lively), "--output", tiled, *keys))
        assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
        assert "equal detections" in done.stdout
        whole = folder / "whole.onnx"
        whole.write_bytes(tiled.read_bytes())
        write_card(whole, replace(read_card(whole), tiles=None))
        return folder

    return made_once(tmp_path_factory, "files of the lively world", make)


def mark_some_of_the_found(lively: World) -> None:
    """Make every second detection, a little moved, an object of the validation set, so that AP is neither 0 nor 1."""
    path = lively.root / "annotations" / "instances_val.json"
    data = read_json(path)
    category = {row["name"]: row["id"] for row in data["categories"]}
    predict = Predictor(lively.config, checkpoint(lively))
    data["annotations"] = []
    for image in data["images"]:
        found = predict(lively.root / "val" / image["file_name"]).numpy()
        for (x1, y1, x2, y2), label in zip(found.boxes[::2].tolist(), found.labels[::2], strict=True):
            box = [x1 + 1, y1, x2 - x1 - 1, y2 - y1]
            row = {"id": len(data["annotations"]) + 1, "image_id": image["id"], "bbox": box, "iscrowd": 0}
            data["annotations"].append({**row, "category_id": category[NAMES[label]], "area": box[2] * box[3]})
    path.write_text(json.dumps(data), encoding="utf-8")


def checkpoint(lively: World) -> Path:
    return lively.config.with_name("model.pth")


def assert_same(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """Detections of the same images, arrays or tensors: boxes within 0.05 px, scores within 1e-3."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert tuple(ours.size) == tuple(theirs.size)
        rows = (each[None] for each in (ours.boxes, ours.scores, ours.labels))
        compare([*rows, np.int64([len(ours)])], [theirs])


def as_detections(record: dict[str, Any]) -> Detections:
    """A line of `predictions.jsonl`."""
    found = record["detections"]
    boxes = torch.tensor([each["box"] for each in found]).reshape(-1, 4)
    labels = torch.tensor([NAMES.index(each["class"]) for each in found])
    return Detections(boxes, torch.tensor([each["score"] for each in found]), labels, tuple(record["size"]))


@pytest.mark.parametrize(
    ("kind", "keys", "threshold"), [("whole", [], None), ("whole", [], 0.05), ("tiled", TILES, 0.05)]
)
def test_detectors(lively: World, files: Path, kind: str, keys: list[str], threshold: float | None) -> None:
    file, paths = files / f"{kind}.onnx", sorted((lively.root / "val").iterdir())
    image = cv2.imread(str(paths[0]))
    sizes = [(1, 1), (12, 128), (96, 9), (31, 33), (128, 96), (150, 111)]  # height, width
    images = [*paths[:3], *(cv2.resize(image, size[::-1]) for size in sizes), image[..., 0]]
    expected = Predictor(load_config(lively.config, keys), checkpoint(lively), threshold)(images)
    assert sum(map(len, expected)) > 50
    assert_same(Detector(file, threshold, threads=1, batch_size=3)(images), expected)
    assert_same(Predictor(lively.config, file, threshold)(images), expected)


@pytest.mark.parametrize("kind", [pytest.param("whole", marks=pytest.mark.nightly), "tiled"])
def test_the_test_of_a_file_is_that_of_its_checkpoint(lively: World, files: Path, kind: str, tmp_path: Path) -> None:
    results = {}
    tiles = TILES if kind == "tiled" else []  # the file knows them
    weights = {"file": [files / f"{kind}.onnx"], "checkpoint": [checkpoint(lively), *tiles]}
    for name, keys in weights.items():
        done = lively.test("OUTPUT_DIR", tmp_path / name, "MODEL.WEIGHT", *keys)
        assert done.returncode == 0, done.stdout + done.stderr
        folder = tmp_path / name / "inference" / "fabric_val"
        metrics = read_json(folder / "metrics.json")
        results[name] = metrics["bbox"], metrics["per_class"], len(read_json(folder / "bbox.json"))
    (of_file, *rest), (of_model, *wanted) = results["file"], results["checkpoint"]
    assert of_file == pytest.approx(of_model, abs=1e-6) and 0.1 < of_model["AP"] < 0.9
    assert list(rest[0]) == list(wanted[0]) == NAMES and rest[1] == wanted[1] > 100


def test_records_and_pictures_of_a_file(lively: World, files: Path, tmp_path: Path) -> None:
    """An exported file needs no configuration."""
    images = lively.root / "val"
    pictures, records = {}, {}
    model = ["--config-file", lively.config, "--weights", checkpoint(lively)]
    for name, options in {"file": ["--weights", files / "whole.onnx"], "checkpoint": model}.items():
        out = tmp_path / name
        done = run(["tools/predict.py", *options, "--input", images, "--output-dir", out, "--save", "jsonl"])
        assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
        records[name] = read_lines(out / "predictions.jsonl")
        done = run(["demo/atss_demo.py", *options, "--images-dir", images, "--output-dir", out / "demo"])
        assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
        pictures[name] = [cv2.imread(str(path)) for path in sorted((out / "demo").iterdir())]
    assert_same(*([as_detections(record) for record in records[name]] for name in ("file", "checkpoint")))
    assert len(pictures["file"]) == len(pictures["checkpoint"]) == len(list(images.iterdir()))
    for ours, theirs in zip(pictures["file"], pictures["checkpoint"], strict=True):
        assert ours.shape == theirs.shape and (ours != theirs).mean() < 0.002  # a score may be rounded otherwise


RGB = {
    "INPUT.TO_BGR255": "False",
    "INPUT.PIXEL_MEAN": "(0.485, 0.456, 0.406)",
    "INPUT.PIXEL_STD": "(0.229, 0.224, 0.225)",
}
GREY = {"INPUT.CHANNELS": "1", "INPUT.PIXEL_MEAN": "(99.0,)", "INPUT.PIXEL_STD": "(50.0,)"}
FOUR = {
    "INPUT.CHANNELS": "4",
    "INPUT.PIXEL_MEAN": "(99.0, 100.0, 110.0, 90.0)",
    "INPUT.PIXEL_STD": "(50.0, 51.0, 52.0, 53.0)",
}
DEEP = {"INPUT.VALUE_RANGE": "(300.0, 3870.0)"}
KINDS = {
    "rgb": (RGB, FixedShape(), 3, np.uint8),
    "grey": (GREY, FixedShape(batch_size=1), 1, np.uint8),
    "four channels": (FOUR, FixedShape(batch_size=2), 4, np.uint8),
    "16 bits": (DEEP, FixedShape(), 3, np.uint16),
    "input size": ({}, FixedShape(2, (75, 100)), 3, np.uint8),
    "camera": ({}, FixedShape(image_size=(96, 128)), 3, np.uint8),
    "camera of 16 bits": (DEEP | RGB, FixedShape(1, image_size=(60, 80)), 3, np.uint16),
    "inclusive boxes": ({"MODEL.PIXEL_CONVENTION": "inclusive"}, FixedShape(batch_size=1), 3, np.uint8),
}


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("kind", "suffix"),
    [*((kind, ".onnx") for kind in KINDS), ("16 bits", ".xml"), ("four channels", ".xml"), ("camera", ".xml")],
)
def test_models_of_all_images(world: World, kind: str, suffix: str, tmp_path: Path) -> None:
    settings, shape, channels, dtype = KINDS[kind]
    made = lively_world(world, tmp_path, **settings)
    file = export(made.config, checkpoint(made), tmp_path / f"model{suffix}", shape=shape)  # tried on noise
    fixed = shape.image_size or shape.input_size
    sizes = [fixed] * 4 if fixed else [(1, 1), (12, 128), (96, 9), (31, 33), (128, 96), (150, 111), (150, 111)]
    rng = np.random.default_rng(0)
    low, high = (250, 4000) if dtype == np.uint16 else (0, 256)
    images = [rng.integers(low, high, (*size, channels), dtype) for size in sizes]
    expected = Predictor(made.config, checkpoint(made), 0.05)(images)
    assert sum(map(len, expected)) > 50
    assert_same(Detector(file, 0.05, threads=1, batch_size=3)(images), expected)
    assert_same(Predictor(made.config, file, 0.05)(images), expected)
