"""GFL and VarifocalNet are trained, resumed, split over processes, tested on views and tiles as ATSS is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from engine import Predictor
from engine.checkpoint import io
from tests.conftest import made_once
from tests.end_to_end.conftest import CONFIG, Trained, World, read_json, read_metrics, train_into

LOSSES = {"GFL": {"loss_cls", "loss_reg", "loss_dfl"}, "VFNET": {"loss_cls", "loss_reg", "loss_reg_first"}}


def make_run(world: World, folder: Path, name: str) -> tuple[World, Trained]:
    config = folder / f"{name}.yaml"
    stage = f"  DENSE: {{NAME: {name}, ARGS: {{num_convs: 1, prior: 0.1, pre_nms_top_n: 50}}}}\n"
    lines = CONFIG.splitlines(keepends=True)
    config.write_text("".join(stage if "ATSS_ON" in line else line for line in lines if "  ATSS:" not in line))
    own = World(world.root, config)
    return own, train_into(own, folder / "run")


@pytest.fixture(scope="module", params=["GFL", pytest.param("VFNET", marks=pytest.mark.nightly)])
def run(
    request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[World, Trained]:
    name = request.param
    return made_once(tmp_path_factory, f"dense_{name}", lambda folder: make_run(world, folder, name))


def test_figures(run: tuple[World, Trained]) -> None:
    own, trained = run
    lines = read_metrics(trained.folder)
    names = {name for line in lines for name in line if name.startswith("loss_")}
    assert len(lines) == 3 and names == LOSSES[own.config.stem]
    assert 0 <= read_json(trained.inference / "metrics.json")["bbox"]["AP"] <= 1
    image = next((own.root / "val").iterdir())
    found = Predictor(str(own.config), str(trained.model), threshold=0.0)(str(image))
    assert len(found) > 0 and found.size == (96, 128)


@pytest.mark.nightly  # tests/assembly/test_every_configuration.py does it in one process
def test_resumed_equals_uninterrupted(run: tuple[World, Trained], tmp_path: Path) -> None:
    own, trained = run
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000004.pth")
    done = own.train("--resume", "--skip-test", "OUTPUT_DIR", folder)
    assert done.returncode == 0, done.stderr
    whole, again = io.load(trained.model)["model"], io.load(folder / "model_final.pth")["model"]
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_two_processes_train_as_one(run: tuple[World, Trained], tmp_path: Path) -> None:
    own, trained = run
    both = train_into(own, tmp_path / "run", "--skip-test", launcher="torchrun")
    expected, lines = (read_metrics(folder) for folder in (trained.folder, both.folder))
    for name in LOSSES[own.config.stem]:
        ours, theirs = ([line[name] for line in each] for each in (lines, expected))
        assert ours == pytest.approx(theirs, rel=5e-3, abs=1e-4), name


@pytest.mark.nightly  # all stages share what is behind `candidates`
def test_views_and_tiles(run: tuple[World, Trained], tmp_path: Path) -> None:
    own, trained = run
    views = ["TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.H_FLIP", "True", "TEST.BBOX_AUG.VOTE", "True"]
    tiles = ["TILING.SIZE", "64", "TILING.OVERLAP", "20"]
    for name, keys in (("views", views), ("tiles", tiles)):
        done = own.test("MODEL.WEIGHT", trained.model, *keys, "OUTPUT_DIR", tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert read_json(tmp_path / name / "inference" / "fabric_val" / "bbox.json")
