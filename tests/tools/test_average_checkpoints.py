from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.assembly.data import build_train_transform
from engine.assembly.model import build_model
from engine.checkpoint import io
from engine.config import load_config
from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools/average_checkpoints.py"
CONFIG = """
MODEL:
  DEVICE: cpu
  RPN_ONLY: True
  ATSS_ON: True
  BACKBONE: {{CONV_BODY: R-18-FPN-RETINANET, FREEZE_CONV_BODY_AT: 0}}
  RESNETS: {{NORM: BN, STEM_OUT_CHANNELS: 8, WIDTH_PER_GROUP: 8, BACKBONE_OUT_CHANNELS: 32}}
  RETINANET: {{USE_C5: False}}
  ATSS: {{NUM_CLASSES: 0, NUM_CONVS: 1}}
INPUT: {{MIN_SIZE_TRAIN: [64], MAX_SIZE_TRAIN: 96, HORIZONTAL_FLIP_PROB_TRAIN: 0.0}}
SOLVER: {{IMS_PER_BATCH: 2, MAX_EPOCH: 5}}
DATALOADER: {{NUM_WORKERS: 0}}
DATASETS:
  ROOT: {root}
  CATALOG: {{mine: {{img_dir: images, ann_file: a.json}}}}
  TRAIN: [mine]
"""


def main(*arguments: str | Path) -> None:
    runpy.run_path(str(SCRIPT))["main"](list(map(str, arguments)))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Two images, a configuration, and a run of three checkpoints with random weights."""
    (tmp_path / "images").mkdir()
    noise = np.random.default_rng(0)
    for i in (1, 2):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), noise.integers(0, 256, (64, 96, 3), np.uint8))
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 64, "width": 96} for i in (1, 2)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 30, 30], "iscrowd": 0}],
        "categories": [{"id": 1, "name": "hole"}, {"id": 2, "name": "stain"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "c.yaml").write_text(CONFIG.format(root=tmp_path))
    cfg = load_config(tmp_path / "c.yaml")
    for i in (1, 2, 3):
        torch.manual_seed(i)
        model = build_model(cfg, ["hole", "stain"])
        state = {"format": "engine-1", "model": model.state_dict(), "class_names": ["hole", "stain"], "iteration": i}
        io.save(tmp_path / "run" / f"model_{i:07d}.pth", {**state, "thresholds": {"iou": 0.5}, "optimizer": {}})
    (tmp_path / "run" / "last_checkpoint").write_text("model_0000003.pth")
    return tmp_path


def run_files(world: Path) -> list[Path]:
    return sorted((world / "run").glob("*.pth"))


def test_a_command(world: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, world / "mean.pth", *run_files(world)[1:], "--weights", "1", "3"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"3 x {run_files(world)[2]}" in done.stdout and "without score thresholds" in done.stdout
    a, b = (io.load(path)["model"] for path in run_files(world)[1:])
    mean = io.load(world / "mean.pth")
    assert mean["thresholds"] is None and "optimizer" not in mean
    name = "backbone.body.layer1.0.conv1.weight"
    torch.testing.assert_close(mean["model"][name], (a[name] + 3 * b[name]) / 4)


def test_the_newest_with_recomputed_statistics(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(world / "plain.pth", "--last", "2", "--dir", world / "run")
    main(
        *(world / "mean.pth", "--last", "2", "--dir", world / "run", "--recompute-bn", "--images", "1"),
        *("--config-file", world / "c.yaml", "SEED", "4"),
    )
    assert "1 x " + str(run_files(world)[0]) not in capsys.readouterr().out
    plain, mean = (io.load(world / f"{name}.pth")["model"] for name in ("plain", "mean"))
    changed = {name for name in plain if not torch.equal(plain[name], mean[name])}
    assert changed == {name for name in plain if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    # The stem by hand: one batch of both images.
    cfg = load_config(world / "c.yaml")
    images = [build_train_transform(cfg)(cv2.imread(str(world / "images" / f"{i}.png")))[0] for i in (1, 2)]
    out = torch.nn.functional.conv2d(
        torch.stack(images), mean["backbone.body.stem.conv1.weight"], stride=2, padding=3
    )  # (2, 8, 32, 48)
    torch.testing.assert_close(
        mean["backbone.body.stem.bn1.running_mean"], out.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-3
    )
    torch.testing.assert_close(mean["backbone.body.stem.bn1.running_var"], out.var(dim=(0, 2, 3)), rtol=1e-4, atol=0.0)
    assert mean["backbone.body.stem.bn1.num_batches_tracked"] == 1


def test_pairs_taken_for_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Like argparse from Python 3.12.7 on: IN takes the first words that belong to no option."""
    parse = argparse.ArgumentParser.parse_known_args

    def greedy(parser: argparse.ArgumentParser, *given: object) -> tuple[argparse.Namespace, list[str]]:
        args, rest = parse(parser, *given)
        args.inputs = [*args.inputs, *rest]
        return args, []

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", greedy)
    parse_args = runpy.run_path(str(SCRIPT))["parse_args"]
    newest, pair = ["out.pth", "--last", "2", "--dir", "run"], ["MODEL.DEVICE", "cpu"]
    args = parse_args([*newest, "--recompute-bn", "--config-file", "c.yaml", *pair])
    assert (args.inputs, args.opts) == ([], pair)
    with pytest.raises(SystemExit):
        parse_args([*newest, *pair])


RECOMPUTE = ("--recompute-bn", "--images", "2", "--config-file")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("MODEL.RESNETS.NORM", "FrozenBN"), "no batch norm that learns statistics"),
        (("MODEL.ATSS.NUM_CONVS", "2"), "another model than the checkpoints: .*missing"),
        (("DATASETS.TRAIN", "()"), "DATASETS.TRAIN is empty"),
    ],
)
def test_a_configuration_that_does_not_fit(world: Path, keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(world / "mean.pth", run_files(world)[0], *RECOMPUTE, world / "c.yaml", *keys)
    assert not (world / "mean.pth").exists()


def test_other_classes(world: Path) -> None:
    (world / "a.json").write_text((world / "a.json").read_text().replace("stain", "knot"))
    with pytest.raises(InputError, match="have the classes 'hole', 'stain', the training set has 'hole', 'knot'"):
        main(world / "mean.pth", run_files(world)[0], *RECOMPUTE, world / "c.yaml")


def test_the_file_to_write_comes_first(world: Path) -> None:
    before = [path.read_bytes() for path in run_files(world)]
    with pytest.raises(InputError, match="exists already; OUT, the file to write, comes first"):
        main(*run_files(world))
    assert [path.read_bytes() for path in run_files(world)] == before


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("out.pth",),
        ("out.pth", "a.pth", "--last", "2", "--dir", "run"),
        ("out.pth", "--last", "2"),
        ("out.pth", "--dir", "run"),
        ("out.pth", "a.pth", "--recompute-bn"),
        ("out.pth", "a.pth", "--config-file", "c.yaml"),
        ("out.pth", "a.pth", "--unknown"),
        ("out.pth", "a.pth", "--weights", "1", "SEED"),
        ("out.pth", "a.pth", "--weights", "1", "--images", "4", "SEED", "4"),
        ("out.pth", "--last", "0", "--dir", "run"),
    ],
)
def test_bad_flags(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(*arguments)
    assert stop.value.code == 2 and "error: " in capsys.readouterr().err
