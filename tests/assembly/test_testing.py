from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from engine.assembly.analysis import analyze_complexity
from engine.assembly.model import build_model
from engine.assembly.testing import Validation, detection_limits, evaluate
from engine.config import CfgNode, get_cfg
from engine.config.keys import KEYS
from engine.errors import InputError


def test_a_model_of_other_classes_that_have_no_names(tmp_path: Path) -> None:
    """Weights of the reference know no names: only the number of classes can tell that they are of another data set."""
    images = [{"id": 1, "file_name": "a.png"}]
    categories = [{"id": 1, "name": "hole"}, {"id": 2, "name": "stain"}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "categories": categories}))
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.ATSS_ON", True, "MODEL.RPN_ONLY", True])
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "R-18-FPN-RETINANET", "DATALOADER.NUM_WORKERS", 0])
    cfg.DATASETS.ROOT, cfg.DATASETS.TEST = str(tmp_path), ("mine",)
    cfg.DATASETS.CATALOG.mine = {"img_dir": ".", "ann_file": "a.json"}
    model = nn.Module()
    model.class_names = []
    with pytest.raises(InputError, match="'mine' has 2 classes, but the model has 80, which its weights do not name"):
        evaluate(cfg, model)


@pytest.fixture
def validation_world(tmp_path: Path) -> CfgNode:
    """Three pictures with a box each, and the configuration of a small detector."""
    rng = np.random.default_rng(1)
    images, boxes = [], []
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 255, (64, 64, 3), np.uint8))
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 64})
        boxes.append({"id": i + 1, "image_id": i, "category_id": 1, "bbox": [8 * i, 8, 24, 32]})
    categories = [{"id": 1, "name": "hole"}, {"id": 2, "name": "stain"}]
    data = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(data))
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.WEIGHT", "", "MODEL.ATSS_ON", True, "MODEL.RPN_ONLY", True])
    cfg.merge_from_list(["MODEL.BACKBONE.CONV_BODY", "R-18-FPN-RETINANET", "MODEL.RETINANET.USE_C5", False])
    cfg.merge_from_list(["MODEL.RESNETS.BACKBONE_OUT_CHANNELS", 32, "MODEL.ATSS.NUM_CONVS", 1])
    cfg.merge_from_list(["MODEL.ATSS.NUM_CLASSES", 0, "MODEL.ATSS.PRIOR_PROB", 0.2, "DATALOADER.NUM_WORKERS", 0])
    cfg.merge_from_list(["INPUT.MIN_SIZE_TEST", 64, "MODEL.PIXEL_CONVENTION", "continuous"])
    cfg.DATASETS.ROOT, cfg.OUTPUT_DIR = str(tmp_path), str(tmp_path / "out")
    cfg.DATASETS.TEST, cfg.DATASETS.VAL = ("mine",), ("mine",)
    cfg.DATASETS.CATALOG.mine = {"img_dir": ".", "ann_file": "a.json"}
    return cfg


def test_validation_is_testing_without_files(validation_world: CfgNode, tmp_path: Path) -> None:
    cfg = validation_world
    torch.manual_seed(0)
    model = build_model(cfg, ["hole", "stain"]).train()
    validate = Validation(cfg, model.class_names)
    first = validate(model)["mine"]
    assert not (tmp_path / "out").exists() and model.training
    expected = evaluate(cfg, model)["mine"]
    figures = dict(first["figures"])
    losses = {name: figures.pop(name) for name in list(figures) if name.startswith("loss")}
    assert figures == expected["metrics"]["bbox"] and first["thresholds"] == expected["thresholds"]
    assert losses.keys() == {"loss", "loss_cls", "loss_reg", "loss_centerness"}

    (tmp_path / "a.json").unlink()  # read once
    assert validate(model)["mine"] == first
    cfg.SOLVER.VALIDATION.LOSS = False
    assert validate(model)["mine"]["figures"] == figures


def test_augmentation_is_for_testing_only(validation_world: CfgNode) -> None:
    cfg = validation_world
    model = build_model(cfg, ["hole", "stain"])
    expected = Validation(cfg, model.class_names)(model)
    cfg.merge_from_list(["TEST.BBOX_AUG.ENABLED", True, "TEST.BBOX_AUG.SCALES", (96,)])
    assert Validation(cfg, model.class_names)(model) == expected


def test_images_that_cannot_be_read_do_not_end_a_training(
    validation_world: CfgNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model(validation_world, ["hole", "stain"])
    validate = Validation(validation_world, model.class_names)
    logging.getLogger("engine").propagate = True
    with caplog.at_level(logging.WARNING, logger="engine"):
        (tmp_path / "1.png").write_bytes(b"")
        validate(model)
        num_said = len(caplog.records)
        assert validate(model)["mine"]["figures"].keys() >= {"AP", "loss"} and len(caplog.records) == num_said
        for name in ("0.png", "2.png"):
            (tmp_path / name).unlink()
        assert validate(model) == {"mine": {"figures": {}, "thresholds": None}}
    said = [record.getMessage() for record in caplog.records]
    assert any("1 of 3 images cannot be read" in line for line in said)
    assert "no validation on mine: data set 'mine': none of its 3 images can be read" in said[-1]


def test_metrics_of_the_configuration_are_those_there_are(validation_world: CfgNode) -> None:
    model = build_model(validation_world, ["hole", "stain"])
    figures = Validation(validation_world, model.class_names)(model)["mine"]["figures"]
    words = set(KEYS["SOLVER.VALIDATION.METRIC"].words.names)
    assert words == {name for name in figures if not name.startswith("loss_")}


def test_complexity_of_the_largest_test_image(validation_world: CfgNode) -> None:
    cfg = validation_world
    cfg.MODEL.ATSS.NUM_CLASSES = 3
    for sizes, told in (((40, 64), "40 x 64"), ((64, 40), "40 x 40")):  # a side is 40 at most
        cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = sizes
        assert f"one image of {told} (height x width), padded to {told}\n" in analyze_complexity(cfg)
    cfg.MODEL.ATSS.NUM_CLASSES = 0
    with pytest.raises(InputError, match=r"DATASETS.TRAIN.*; or set the number of classes: MODEL.ATSS.NUM_CLASSES K"):
        analyze_complexity(cfg)
    cfg.DATASETS.TRAIN = ("mine",)
    assert "one image" in analyze_complexity(cfg, (32, 32), depth=0) and cfg.MODEL.RPN.NMS_THRESH == 0.7


def test_a_limit_on_detections_is_said_in_testing_and_once_in_validation(
    validation_world: CfgNode, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    cfg = validation_world
    cfg.merge_from_list(["TEST.MAX_DETS", 1, "TEST.DETECTIONS_PER_IMG", 20, "MODEL.ATSS.INFERENCE_TH", 0.0])
    model = build_model(cfg, ["hole", "stain"])
    metrics = evaluate(cfg, model)["mine"]["metrics"]
    (note,) = metrics["notes"]
    assert re.match(r"[1-9]\d* of \d+ detections are beyond the best 1 of their image and class .TEST.MAX_DETS.", note)
    assert [record.getMessage() for record in said.records].count(f"mine: {note}") == 1
    assert json.loads((tmp_path / "out/inference/mine/metrics.json").read_text())["notes"] == [note]
    said.clear()
    validate = Validation(cfg, model.class_names)
    assert validate(model)["mine"]["figures"]["AP"] == metrics["bbox"]["AP"] and validate(model)
    assert [record.getMessage() for record in said.records].count(f"mine: {note}") == 1


@pytest.mark.parametrize(
    "keys, expected",
    [
        (
            ["MODEL.ATSS_ON", True, "MODEL.RPN_ONLY", True, "TEST.DETECTIONS_PER_IMG", 7],
            {"TEST.DETECTIONS_PER_IMG": 7, "MODEL.ATSS.PRE_NMS_TOP_N": 5000},
        ),
        (
            ["MODEL.RETINANET_ON", True, "MODEL.RPN_ONLY", True, "MODEL.RETINANET.PRE_NMS_TOP_N", 10],
            {"TEST.DETECTIONS_PER_IMG": 100, "MODEL.RETINANET.PRE_NMS_TOP_N": 50},
        ),
        (
            ["MODEL.FCOS_ON", True, "MODEL.RPN_ONLY", True, "MODEL.FCOS.FPN_STRIDES", (8, 16)],
            {"TEST.DETECTIONS_PER_IMG": 100, "MODEL.FCOS.PRE_NMS_TOP_N": 2000},
        ),
        (
            ["MODEL.RPN_ONLY", False, "MODEL.ROI_HEADS.DETECTIONS_PER_IMG", 9, "TEST.DETECTIONS_PER_IMG", 1],
            {
                "MODEL.RPN.POST_NMS_TOP_N_TEST": 1000,
                "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": 9,
                "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 2000,
            },
        ),
    ],
)
def test_the_limits_of_a_model_on_what_it_finds(keys: list[Any], expected: dict[str, int]) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(keys)
    assert detection_limits(cfg) == expected
