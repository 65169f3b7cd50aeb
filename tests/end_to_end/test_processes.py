"""Several processes on one machine, over gloo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.checkpoint import io
from tests.end_to_end.conftest import NUM_VAL, Trained, World, read_json, read_metrics, train_into


def test_two_processes_train_as_one(world: World, trained: Trained, tmp_path: Path) -> None:
    """The same global batches of images of one size, a norm that looks at one image: equal up to rounding."""
    keys = ["TEST.IMS_PER_BATCH", "2", "DATALOADER.NUM_WORKERS", "1"]
    both = train_into(world, tmp_path / "run", *keys, launcher="launch")
    expected, lines = (read_metrics(run.folder) for run in (trained, both))
    for name in ("loss", "loss_cls", "loss_reg", "loss_centerness", "lr"):
        assert [line[name] for line in lines] == pytest.approx([line[name] for line in expected], rel=1e-3)
    ours, theirs = io.load(both.model)["model"], io.load(trained.model)["model"]
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-2, atol=1e-4) for name in theirs)

    files, alone = ({p.name for p in run.folder.rglob("*") if p.is_file()} for run in (both, trained))
    assert files == alone
    assert both.output.count("iter 6/6") == 1 and both.output.count("score thresholds with") == 1
    assert io.load(both.model)["thresholds"] == read_json(both.inference / "thresholds.json")


@pytest.mark.parametrize("num_steps", [12, pytest.param(50, marks=pytest.mark.nightly)])
def test_many_steps_lose_the_same(world: World, tmp_path: Path, num_steps: int) -> None:
    """1 process with batches of 4, 2 with 2.

    The learning rate is small because training amplifies the rounding of sums in another order: at 0.002 tenfold every
    four steps, with any number of processes.
    """
    keys = [
        "SOLVER.MAX_ITER",
        str(num_steps),
        "SOLVER.BASE_LR",
        "0.00001",
        "SOLVER.LOG_PERIOD",
        "1",
        "SOLVER.STEPS",
        "(10,)",
    ]
    runs = [
        train_into(world, tmp_path / str(launcher), "--skip-test", *keys, launcher=launcher)
        for launcher in (None, "torchrun")
    ]
    alone, both = (read_metrics(run.folder) for run in runs)
    assert len(alone) == num_steps
    for name in ("loss", "loss_cls", "loss_reg", "loss_centerness"):
        assert [line[name] for line in both] == pytest.approx([line[name] for line in alone], rel=1e-5)


@pytest.mark.parametrize("number", [2, 4])
def test_any_number_of_processes_finds_the_same(world: World, trained: Trained, tmp_path: Path, number: int) -> None:
    """The images of an odd number of them, shared out: each once, none twice, and the figures the same bits."""
    assert NUM_VAL % number
    done = world.test("MODEL.WEIGHT", trained.model, "OUTPUT_DIR", tmp_path, num_processes=number)
    assert done.returncode == 0, done.stderr
    for name in ("bbox", "metrics", "thresholds"):
        ours = read_json(tmp_path / "inference" / "fabric_val" / f"{name}.json")
        assert ours == read_json(trained.inference / f"{name}.json")
    assert done.stdout.count("score thresholds with") == 1


def test_batches_without_boxes_do_not_hang(world: World, tmp_path: Path) -> None:
    """One image of twelve has boxes, so most of the time one process or both have none."""
    data = read_json(world.root / "annotations" / "instances_train.json")
    first = data["annotations"][0]["image_id"]
    data["annotations"] = [row for row in data["annotations"] if row["image_id"] == first]
    path = tmp_path / "empty.json"
    path.write_text(json.dumps(data))
    entry = {"img_dir": "train", "ann_file": str(path)}
    keys = ["DATASETS.CATALOG", str({"empty": entry}), "DATASETS.TRAIN", "('empty',)", "SOLVER.LOG_PERIOD", "1"]
    run = train_into(world, tmp_path / "run", "--skip-test", *keys, launcher="torchrun")
    lines = read_metrics(run.folder)
    assert len(lines) == 6 and all(torch.isfinite(torch.tensor(line["loss"])) for line in lines)
    assert any(line["loss_reg"] == 0 for line in lines) and any(line["loss_reg"] > 0 for line in lines)
