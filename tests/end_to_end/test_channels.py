"""Grey images, and colours with a fourth channel: from training with weights of colour images to the demo."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine import Predictor
from engine.checkpoint import io
from engine.errors import InputError
from tests.end_to_end.conftest import Trained, World, read_json, run, train_into

MEANS = {1: "[114.0]", 4: "[104.0, 116.0, 123.0, 90.0]"}


def keys_of(channels: int) -> list[str]:
    deviations = str([1.0] * channels)
    return ["INPUT.CHANNELS", str(channels), "INPUT.PIXEL_MEAN", MEANS[channels], "INPUT.PIXEL_STD", deviations]


@pytest.fixture(scope="module")
def infrared(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The images of `world` as TIFFs of four channels, of which the last shows the fabric upside down."""
    copy = world.copy(tmp_path_factory.mktemp("infrared") / "data")
    for part in ("train", "val"):
        ann_file = copy.root / "annotations" / f"instances_{part}.json"
        ann_file.write_text(json.dumps(json.loads(ann_file.read_text())).replace(".jpg", ".tif"))
        for path in (copy.root / part).glob("*.jpg"):
            image = cv2.imread(str(path))
            cv2.imwrite(str(path.with_suffix(".tif")), np.dstack([image, image[::-1, :, 1]]))
            path.unlink()
    copy.config = copy.root / "four.yaml"
    lines = f"  CHANNELS: 4\n  PIXEL_MEAN: {MEANS[4]}\n  PIXEL_STD: {[1.0] * 4}\n"
    copy.config.write_text(world.config.read_text().replace("INPUT:\n", f"INPUT:\n{lines}"))
    return copy


@pytest.fixture(scope="module")
def trained_infrared(infrared: World, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained_infrared") / "run"
    return train_into(infrared, folder, "MODEL.WEIGHT", trained.model, "SOLVER.MAX_ITER", "2")


def test_four_channels_are_trained_from_three(infrared: World, trained: Trained, trained_infrared: Trained) -> None:
    assert trained_infrared.output.count("from 3 input channels to the 4 of INPUT.CHANNELS") == 1
    assert trained_infrared.errors == ""
    content = io.load(trained_infrared.model)
    assert content["conventions"] == {
        "INPUT.CHANNELS": 4,
        "INPUT.PIXEL_MEAN": (104.0, 116.0, 123.0, 90.0),
        "INPUT.PIXEL_STD": (1.0,) * 4,
        "INPUT.TO_BGR255": True,
    }
    assert content["model"]["backbone.body.stem.conv1.weight"].shape[1] == 4
    assert "INPUT.CHANNELS" not in io.load(trained.model).get("conventions", {})
    assert len(read_json(trained_infrared.inference / "bbox.json"))


def test_predictor_and_pictures(infrared: World, trained_infrared: Trained, tmp_path: Path) -> None:
    predict = Predictor(infrared.config, trained_infrared.model, threshold=0.0)
    path = sorted((infrared.root / "val").glob("*.tif"))[0]
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert predict.prepare(path)[0].shape[0] == 4
    found = predict([path, image])
    assert len(found[0]) and torch.equal(found[0].boxes, found[1].boxes)
    with pytest.raises(ValueError, match=r"of shape \(H, W, 4\), not empty"):
        predict(image[..., :3])
    options = ["--weights", trained_infrared.model, "--images-dir", infrared.root / "val", "--output-dir", tmp_path]
    done = run(infrared.command("demo/atss_demo.py", *options, "--threshold", "0.999"))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (cv2.imread(str(tmp_path / path.name)) == image[..., :3]).mean() > 0.9
    options = ["--dataset", "fabric_val", "--num-images", "1", "--output-dir", tmp_path / "drawn"]
    done = run(infrared.command("tools/draw_dataset.py", *options))
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_other_channels_are_one_line(
    world: World, infrared: World, trained: Trained, trained_infrared: Trained
) -> None:
    for config, weights, words in (
        (world.config, trained_infrared.model, "trained with INPUT.CHANNELS 4, but the configuration has 3"),
        (infrared.config, trained.model, "trained with INPUT.CHANNELS 3, but the configuration has 4"),
    ):
        with pytest.raises(InputError, match=words):
            Predictor(config, weights)
    predict = Predictor(infrared.config, trained_infrared.model)
    with pytest.raises(InputError, match="has 3 channels, but INPUT.CHANNELS is 4"):
        predict(sorted((world.root / "val").glob("*.jpg"))[0])


@pytest.mark.nightly
def test_grey_with_augmented_testing(world: World, trained: Trained, tmp_path: Path) -> None:
    """Colour files become grey; the batch travels from a worker as bytes."""
    workers = ["DATALOADER.NUM_WORKERS", "1", "TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.H_FLIP", "True"]
    options = ["MODEL.WEIGHT", trained.model, "SOLVER.MAX_ITER", "1", *workers, *keys_of(1)]
    grey = train_into(world, tmp_path / "run", *options)
    assert grey.output.count("from 3 input channels to the 1 of INPUT.CHANNELS (summed") == 1 and grey.errors == ""
    assert io.load(grey.model)["model"]["backbone.body.stem.conv1.weight"].shape[1] == 1
    assert len(read_json(grey.inference / "bbox.json"))
