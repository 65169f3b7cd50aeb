"""What `tools/publish_model.py` and `tools/average_checkpoints.py` write is used like what training wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.assembly.detector import Predictor
from engine.checkpoint import io
from tests.end_to_end.conftest import Trained, World, read_json, run


@pytest.fixture(scope="module")
def published(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("published")
    for flags in ((), ("--safetensors",)):
        done = run(["tools/publish_model.py", trained.model, folder / "mine.pth", *flags])
        assert (done.returncode, done.stderr) == (0, "")
    return {path.suffix: path for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_it_is_tested_with_the_same_figures(
    world: World, trained: Trained, published: dict[str, Path], suffix: str, tmp_path: Path
) -> None:
    path = published[suffix]
    assert path.stat().st_size < 0.7 * trained.model.stat().st_size  # the momentum is gone
    done = world.test("MODEL.WEIGHT", path, "OUTPUT_DIR", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("bbox", "metrics", "thresholds"):
        expected = read_json(trained.inference / f"{name}.json")
        assert read_json(tmp_path / "inference" / "fabric_val" / f"{name}.json") == expected


def test_the_demo_and_the_predictor_know_its_classes_and_thresholds(
    world: World, trained: Trained, published: dict[str, Path], tmp_path: Path
) -> None:
    path = published[".safetensors"]
    options = ("--weights", path, "--images-dir", world.root / "val", "--output-dir", tmp_path)
    done = run(world.command("demo/atss_demo.py", *options))
    assert (done.returncode, done.stderr) == (0, "") and len(list(tmp_path.iterdir())) == 7
    predictors = [Predictor(str(world.config), file) for file in (trained.model, path)]
    assert predictors[1].class_names == predictors[0].class_names == io.load(trained.model)["class_names"]
    assert predictors[1].stored_thresholds == predictors[0].stored_thresholds


def test_thresholds_can_be_written_into_it(world: World, published: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "copy.safetensors"
    path.write_bytes(published[".safetensors"].read_bytes())
    done = world.test("--write-thresholds", "MODEL.WEIGHT", path, "OUTPUT_DIR", tmp_path, "TEST.THRESHOLD_IOU", "0.3")
    assert (done.returncode, done.stderr) == (0, "")
    assert io.load(path)["thresholds"] == read_json(tmp_path / "inference" / "fabric_val" / "thresholds.json")


def test_a_mean_is_tested(world: World, trained: Trained, tmp_path: Path) -> None:
    """Of one checkpoint it is that one."""
    done = run(["tools/average_checkpoints.py", tmp_path / "mean.pth", "--last", "1", "--dir", trained.folder])
    assert (done.returncode, done.stderr) == (0, "") and "model_final.pth" in done.stdout
    done = world.test("MODEL.WEIGHT", tmp_path / "mean.pth", "OUTPUT_DIR", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("bbox", "metrics"):
        expected = read_json(trained.inference / f"{name}.json")
        assert read_json(tmp_path / "inference" / "fabric_val" / f"{name}.json") == expected


def test_a_mean_of_two(trained: Trained, tmp_path: Path) -> None:
    done = run(["tools/average_checkpoints.py", tmp_path / "mean.pth", "--last", "2", "--dir", trained.folder])
    assert (done.returncode, done.stderr) == (0, "")
    parts = [io.load(trained.folder / name)["model"] for name in ("model_0000004.pth", "model_final.pth")]
    name = "rpn.head.cls_logits.bias"
    mean = io.load(tmp_path / "mean.pth")["model"][name]
    assert ((mean - (parts[0][name] + parts[1][name]) / 2).abs() < 1e-6).all()
    assert not (parts[0][name] == parts[1][name]).all()
