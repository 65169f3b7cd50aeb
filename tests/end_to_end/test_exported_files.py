"""An exported file in the place of a checkpoint: in `tools/test_net.py`, the demo and the Predictor."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine import Predictor
from engine.checkpoint import check_storable, store_thresholds
from engine.config import load_config
from engine.errors import InputError
from engine.runtime import Detector
from engine.runtime.card import ImageRule, ModelCard, TileRule
from engine.runtime.card_file import read_card
from tests.end_to_end.conftest import World, read_json, run
from tests.runtime.conftest import write_onnx

NAMES = ("hole", "stain", "broken_thread", "knot", "float")
CARD = ModelCard(NAMES, {"hole": 0.5}, 0.3, ImageRule(96, 128))
TILED = ModelCard(
    NAMES, {}, 0.3, ImageRule(96, 128), tiles=TileRule(48, 12, True, (0.0,) * 3, "nms", {"iou_thresh": 0.5})
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("exported") / "model.onnx", CARD)


def test_the_test_of_a_file(world: World, exported: Path, tmp_path: Path) -> None:
    """Figures of its detections, and new thresholds in its card."""
    model = shutil.copy(exported, tmp_path / "copy.onnx")
    done = world.test("--write-thresholds", "MODEL.WEIGHT", model, "OUTPUT_DIR", tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    folder = tmp_path / "inference" / "fabric_val"
    assert list(read_json(folder / "metrics.json")["per_class"]) == list(NAMES)
    detector = Detector(exported, threshold=0.0)
    images = sorted((world.root / "val").iterdir())
    results = read_json(folder / "bbox.json")
    assert len(results) == 4 * len(images)
    expected = np.sort(np.concatenate([each.scores for each in detector(images)]))
    assert np.sort([each["score"] for each in results]) == pytest.approx(expected, abs=1e-4)
    stored = read_json(folder / "thresholds.json")["classes"]
    limits = {name: entry["threshold"] for name, entry in stored.items() if entry["threshold"] is not None}
    assert read_card(Path(model)).thresholds == limits != CARD.thresholds


def test_thresholds_in_a_file(exported: Path, tmp_path: Path) -> None:
    """A class without objects keeps its threshold; one whose rule finds none gets the default."""
    path = Path(shutil.copy(exported, tmp_path / "copy.onnx"))
    entries = {"hole": (0.9, 0), "stain": (0.7, 3), "broken_thread": (None, 5), "knot": (None, 0)}
    classes = {name: {"threshold": limit, "num_gt": count} for name, (limit, count) in entries.items()}
    store_thresholds(path, {"iou": 0.5, "classes": classes})
    assert read_card(path).thresholds == {"hole": 0.5, "stain": 0.7}
    with pytest.raises(InputError, match="no.onnx"):
        check_storable(tmp_path / "no.onnx")


def test_pictures_of_a_file(world: World, exported: Path, tmp_path: Path) -> None:
    options = ["--weights", exported, "--images-dir", world.root / "val", "--output-dir", tmp_path / "pictures"]
    done = run(world.command("demo/atss_demo.py", *options))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert len(list((tmp_path / "pictures").iterdir())) == len(list((world.root / "val").iterdir()))
    (row,) = (line for line in done.stdout.splitlines() if line.split()[:1] == ["hole"])
    assert row.split()[-1] == "0.500"


@pytest.mark.parametrize("card", [CARD, TILED], ids=["whole", "tiled"])
def test_a_predictor_is_the_detector(world: World, card: ModelCard, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx", card)
    predictor, detector = Predictor(world.config, path), Detector(path)
    assert predictor.class_names == detector.class_names == list(NAMES)
    images = [cv2.imread(str(each)) for each in sorted((world.root / "val").iterdir())[:3]]
    images += [images[0][:50], images[1].transpose(1, 0, 2), images[0][..., 0]]
    for ours, theirs in zip(predictor(images), detector(images), strict=True):
        assert len(ours) and ours.size == theirs.size and np.array_equal(ours.labels.numpy(), theirs.labels)
        assert np.array_equal(ours.scores.numpy(), theirs.scores)
        assert ours.boxes.numpy() == pytest.approx(theirs.boxes, abs=1e-4)
    assert len(Predictor(world.config, path, threshold=0.0)(images[0])) > len(predictor(images[0]))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["TEST.BBOX_AUG.ENABLED", "True"], "TEST.BBOX_AUG.ENABLED: "),
        (["INPUT.MIN_SIZE_TEST", "64"], "INPUT.MIN_SIZE_TEST is 64, but .* exported with 96"),
        (["INPUT.MAX_SIZE_TEST", "256"], "INPUT.MAX_SIZE_TEST is 256, but .* exported with 128"),
        (["TILING.SIZE", "64"], "TILING.SIZE 64, OVERLAP 16: .* exported with no tiles"),
        (["INPUT.CHANNELS", "1", "INPUT.PIXEL_MEAN", "(99.0,)", "INPUT.PIXEL_STD", "(1.0,)"], "INPUT.CHANNELS 3"),
    ],
)
def test_keys_that_a_file_cannot_follow(world: World, exported: Path, keys: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Predictor(load_config(world.config, keys), exported)


def test_one_device(world: World, exported: Path) -> None:
    with pytest.raises(InputError, match="exported file runs on one device"):
        Predictor(world.config, exported, devices=["cpu", "cpu"])


def test_an_exported_file_is_no_start_of_a_training(world: World, exported: Path, tmp_path: Path) -> None:
    done = world.train("MODEL.WEIGHT", exported, "OUTPUT_DIR", tmp_path / "run")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "model.onnx" in done.stderr and "checkpoint" in done.stderr
