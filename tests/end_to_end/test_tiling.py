"""Training with `TILING`; what follows it from the checkpoint, without the block in the YAML file."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pytest
import torch

from engine import Predictor
from engine.checkpoint import io
from tests.end_to_end.conftest import Trained, World, figures_of, read_json, read_metrics, run, train_into

BLOCK = [  # images are 96 x 128
    *("TILING.SIZE", "64", "TILING.OVERLAP", "20", "TILING.KEEP_FULL", "True", "TILING.MERGE_TYPE", "soft-vote"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "96"),
]
TEST_SIZES = ["INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"]
KEYS = [*BLOCK, *TEST_SIZES, "DATASETS.VAL", "('fabric_val',)"]


@pytest.fixture(scope="module")
def on_tiles(world: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_into(world, tmp_path_factory.mktemp("tiles") / "run", *KEYS)


def test_the_plan_is_logged_and_stored(on_tiles: Trained) -> None:
    plan = "TILING: 64 x 64 pixels, 20 shared: 12 images become 72 tiles and 12 whole pictures (7 per image); "
    assert on_tiles.output.count(plan) == 1 and "have no box to train on; an epoch is 84" in on_tiles.output
    conventions = io.load(on_tiles.model)["conventions"]
    assert conventions["TILING.SIZE"] == 64 and conventions["TILING.MERGE_TYPE"] == "soft-vote"
    assert on_tiles.errors == "" and "TILING.KEEP_FULL True: set for this run" not in on_tiles.output
    (validation,) = (line for line in read_metrics(on_tiles.folder) if "lr" not in line)
    assert "fabric_val/AP" in validation and validation["fabric_val/loss"] > 0


def test_testing_follows(world: World, on_tiles: Trained, tmp_path: Path) -> None:
    """On two processes with loader workers, which find what one process has found."""
    keys = ["MODEL.WEIGHT", on_tiles.model, *TEST_SIZES, "TEST.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "1"]
    done = world.test(*keys, "OUTPUT_DIR", tmp_path, num_processes=2)
    assert done.returncode == 0 and "needs TILING.SIZE 64" in done.stdout, done.stderr
    for name in ("bbox", "metrics", "thresholds"):
        stored = read_json(on_tiles.inference / f"{name}.json")
        assert read_json(tmp_path / "inference" / "fabric_val" / f"{name}.json") == stored


def test_predictor_and_demo_follow(world: World, on_tiles: Trained, tmp_path: Path) -> None:
    text = world.config.read_text().replace("MIN_SIZE_TEST: 96", "MIN_SIZE_TEST: 64")
    config = tmp_path / "tiny.yaml"
    config.write_text(text.replace("MAX_SIZE_TEST: 128", "MAX_SIZE_TEST: 96"))
    paths = sorted((world.root / "val").glob("*.jpg"))
    images = {row["file_name"]: row["id"] for row in read_json(world.root / "annotations/instances_val.json")["images"]}
    predict = Predictor(config, on_tiles.model, threshold=0.0)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(predict, paths))
    for path, detections in zip(paths, found, strict=True):
        stored = [row for row in read_json(on_tiles.inference / "bbox.json") if row["image_id"] == images[path.name]]
        assert len(detections) == len(stored) > 0
        assert detections.scores.tolist() == pytest.approx([row["score"] for row in stored], abs=1e-4)
    assert torch.equal(predict(paths[:2])[1].boxes, found[1].boxes)

    options = ["--weights", on_tiles.model, "--images-dir", world.root / "val", "--output-dir", tmp_path / "demo"]
    done = run(["demo/atss_demo.py", "--config-file", config, *options, "--threshold", "0.0"])
    assert done.returncode == 0 and done.stderr == "" and "needs TILING.SIZE 64" in done.stdout, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if line.lstrip().startswith("all "))
    assert int(row.split()[1]) == sum(map(len, found))
    assert cv2.imread(str(tmp_path / "demo" / paths[0].name)).shape == (96, 128, 3)


def test_resumed_bit_by_bit(world: World, on_tiles: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(on_tiles.folder, folder)
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000004.pth")
    done = world.train("--resume", "--skip-test", "OUTPUT_DIR", folder, *KEYS)
    assert done.returncode == 0 and "iteration 4 of 6" in done.stdout, done.stderr
    ours, theirs = (io.load(path)["model"] for path in (folder / "model_final.pth", on_tiles.model))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert figures_of(folder) == figures_of(on_tiles.folder)


@pytest.mark.nightly
def test_two_processes_train_as_one(world: World, tmp_path: Path) -> None:
    """Tiles only: whole pictures are of another size, so what they are padded to depends on the number of processes."""
    keys = [*KEYS, "TILING.KEEP_FULL", "False", "DATALOADER.EMPTY_SHARE", "0.25"]
    alone = train_into(world, tmp_path / "alone", "--skip-test", *keys)
    both = train_into(
        world, tmp_path / "both", "--skip-test", *keys, "DATALOADER.NUM_WORKERS", "1", launcher="torchrun"
    )
    lines, expected = ([line for line in read_metrics(each.folder) if "lr" in line] for each in (both, alone))
    for name in ("loss", "loss_cls", "loss_reg", "loss_centerness", "lr"):
        assert [line[name] for line in lines] == pytest.approx([line[name] for line in expected], rel=1e-3)
    assert both.output.count("TILING: 64 x 64 pixels") == 1
