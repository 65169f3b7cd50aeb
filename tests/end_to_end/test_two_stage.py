"""A cascade is trained, resumed, split over processes, tested (augmented, too) and asked as ATSS is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from engine import Predictor
from engine.checkpoint import io
from tests.end_to_end.conftest import CONFIG, Trained, World, read_json, read_metrics, train_into

CASCADE = """
  RPN_ONLY: False
  CLS_AGNOSTIC_BBOX_REG: True
  PIXEL_CONVENTION: continuous
  BACKBONE: {CONV_BODY: R-18-FPN, FREEZE_CONV_BODY_AT: 0}
  RESNETS: {NORM: GN, BACKBONE_OUT_CHANNELS: 32}
  RPN:
    USE_FPN: True
    ANCHOR_STRIDE: (4, 8, 16, 32, 64)
    BATCH_SIZE_PER_IMAGE: 32
    PRE_NMS_TOP_N_TRAIN: 100
    PRE_NMS_TOP_N_TEST: 50
  ROI_HEADS: {NAME: CascadeROIHeads, USE_FPN: True, BATCH_SIZE_PER_IMAGE: 32, SCORE_THRESH: 0.01}
  ROI_BOX_HEAD:
    NUM_CLASSES: 0
    FEATURE_EXTRACTOR: FPN2MLPFeatureExtractor
    PREDICTOR: FPNPredictor
    POOLER_RESOLUTION: 7
    POOLER_SCALES: (0.25, 0.125, 0.0625, 0.03125)
    POOLER_SAMPLING_RATIO: 2
    MLP_HEAD_DIM: 32
"""


@pytest.fixture(scope="module")
def cascade(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    start, end = CONFIG.index("  RPN_ONLY"), CONFIG.index("DATASETS:")
    config = tmp_path_factory.mktemp("cascade") / "cascade.yaml"
    config.write_text(CONFIG[:start] + CASCADE.lstrip("\n") + CONFIG[end:])
    return World(world.root, config)


@pytest.fixture(scope="module")
def run(cascade: World, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train_into(cascade, tmp_path_factory.mktemp("cascade_run") / "run")


def test_figures_of_every_stage(run: Trained) -> None:
    lines = read_metrics(run.folder)
    names = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier_stage2", "loss_box_reg_stage0"}
    assert len(lines) == 3 and all(names <= line.keys() for line in lines)
    assert 0 <= read_json(run.inference / "metrics.json")["bbox"]["AP"] <= 1


def test_resumed_equals_uninterrupted(cascade: World, run: Trained, tmp_path: Path) -> None:
    """Samplers draw the same in iteration 5, whether or not the process drew in the four before."""
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000004.pth")
    done = cascade.train("--resume", "--skip-test", "OUTPUT_DIR", folder)
    assert done.returncode == 0, done.stderr
    whole, again = io.load(run.model)["model"], io.load(folder / "model_final.pth")["model"]
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_two_processes_train_as_one(cascade: World, run: Trained, tmp_path: Path) -> None:
    both = train_into(cascade, tmp_path / "run", "TEST.IMS_PER_BATCH", "2", launcher="torchrun")
    expected, lines = (read_metrics(each.folder) for each in (run, both))
    for name in (name for name in expected[0] if name.startswith("loss")):
        ours, theirs = ([line[name] for line in each] for each in (lines, expected))
        assert ours == pytest.approx(theirs, rel=5e-3, abs=1e-4), name


def test_augmented_testing_and_predictor(cascade: World, run: Trained, tmp_path: Path) -> None:
    keys = ["MODEL.WEIGHT", run.model, "TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.H_FLIP", "True"]
    for vote in ("True", "False"):
        done = cascade.test(*keys, "TEST.BBOX_AUG.VOTE", vote, "OUTPUT_DIR", tmp_path / vote)
        assert done.returncode == 0, done.stdout + done.stderr
        assert read_json(tmp_path / vote / "inference" / "fabric_val" / "bbox.json")
    image = next((cascade.root / "val").iterdir())
    found = Predictor(str(cascade.config), str(run.model), threshold=0.0)(str(image))
    assert len(found) > 0 and found.size == (96, 128)
