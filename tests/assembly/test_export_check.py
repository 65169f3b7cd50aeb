"""An exported file compared with its model; both are stand-ins that find a box per image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from engine import structures
from engine.assembly.export_check import ExportCheck, check_table
from engine.config import CfgNode, get_cfg
from engine.data.reading import DEFAULT
from engine.errors import InputError
from engine.runtime.card import ImageRule, ModelCard
from engine.runtime.detections import Detections

CARD = ModelCard(("hole",), {"hole": 0.5}, 0.3, ImageRule(32, 64))
BOX = [8.0, 8.0, 24.0, 24.0]


class Finds:
    """Takes the place of model and file: the box with a score for each image, which it knows by its blue."""

    def __init__(self, scores: list[float], kind: Any, box: list[float] = BOX) -> None:
        self.class_names, self.reading, self.card = ["hole"], DEFAULT, CARD
        self.scores, self.kind, self.box = scores, kind, box

    def detect(self, pixels: np.ndarray) -> Any:
        score = self.scores[pixels[0, 0, 0]]
        if score < 0:
            raise InputError("too large")
        parts = np.float32([self.box]), np.float32([score]), np.int64([0])
        parts = map(torch.from_numpy, parts) if self.kind is structures.Detections else parts
        return self.kind(*parts, pixels.shape[:2])


def model(scores: list[float]) -> Any:
    return Finds(scores, structures.Detections)


def exported(scores: list[float], box: list[float] = BOX) -> Any:
    return Finds(scores, Detections, box)


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    """Three images of 32 x 32, of which the first two have the box."""
    images, boxes = [], []
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((32, 32, 3), number, np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "height": 32, "width": 32})
        boxes.append({"id": number + 1, "image_id": number, "category_id": 1, "bbox": [8, 8, 16, 16]})
    data = {"images": images, "annotations": boxes[:2], "categories": [{"id": 1, "name": "hole"}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    cfg = get_cfg()
    cfg.DATASETS.ROOT, cfg.DATASETS.TEST = str(tmp_path), ("mine",)
    cfg.DATASETS.CATALOG.mine = {"img_dir": ".", "ann_file": "a.json"}
    return cfg


def test_equal_files_lose_nothing(cfg: CfgNode) -> None:
    outcome = ExportCheck(cfg, model([0.9, 0.8, 0.2]))(exported([0.9, 0.8, 0.2]))[0]
    assert [each["AP"] for each in outcome.metrics] == [1.0, 1.0]
    assert (outcome.num_images, outcome.agreement.share, outcome.loss, outcome.refusal(0.0)) == (3, 1.0, 0.0, "")


def test_a_lost_object_is_a_lower_ap_and_refused(cfg: CfgNode) -> None:
    # Above the second object stands a false detection in the third image: precision 1 up to recall 0.5, then 2/3.
    outcome = ExportCheck(cfg, model([0.9, 0.8, 0.2]))(exported([0.9, 0.6, 0.7]))[0]
    assert outcome.metrics[1]["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert outcome.loss == pytest.approx(1 - outcome.metrics[1]["AP"])
    assert outcome.refusal(None).startswith("AP falls by 0.1650 on 3 images of mine, more than --max-drop 0.01")
    assert outcome.refusal(0.2) == ""


def test_thresholds_are_those_of_the_file(cfg: CfgNode) -> None:
    outcome = ExportCheck(cfg, model([0.9, 0.8, 0.2]))(exported([0.75, 0.625, 0.25]))[0]
    assert outcome.loss == 0.0
    assert outcome.thresholds["classes"]["hole"]["threshold"] == pytest.approx(0.625)
    assert outcome.agreement.share == 1.0
    assert outcome.agreement.largest_difference == pytest.approx(0.175)


def test_only_the_first_images_are_looked_at(cfg: CfgNode) -> None:
    outcome = ExportCheck(cfg, model([0.9, 0.8, 0.2]), limit=1)(exported([0.9, 0.0, 0.0]))[0]
    assert (outcome.num_images, outcome.loss) == (1, 0.0)


def test_images_that_the_file_does_not_take_count_for_neither(cfg: CfgNode) -> None:
    check = ExportCheck(cfg, model([0.9, 0.8, 0.95]))
    outcome = check(exported([0.9, 0.8, -1]))[0]
    assert (outcome.num_images, outcome.metrics[0]["AP"], outcome.loss) == (2, 1.0, 0.0)
    with pytest.raises(InputError, match="mine: none of its images can be used to check the file: too large"):
        check(exported([-1, -1, -1]))


def test_without_ground_truth_the_detections_above_the_thresholds_are_compared(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.DATASETS.TEST = ()
    check = ExportCheck(cfg, model([0.9, 0.8, 0.2]), images=tmp_path)
    same = check(exported([0.9, 0.8, 0.4]))[0]
    assert (same.metrics, same.thresholds, same.agreement.share) == ([], {}, 1.0)
    lost = check(exported([0.9, 0.4, 0.4]))[0]
    assert lost.agreement.share == pytest.approx(2 / 3)
    assert lost.refusal(None).startswith("the share of detections that differ is 0.3333 on 3 images of ")
    moved = check(exported([0.9, 0.8, 0.4], [8.0, 8.0, 24.0, 26.0]))[0]
    assert moved.agreement.share == 0.0
    assert ExportCheck(cfg, model([]))(exported([])) == []


def test_the_table_has_a_line_for_the_model_and_one_for_the_file(cfg: CfgNode) -> None:
    outcomes = ExportCheck(cfg, model([0.9, 0.8, 0.2]))(exported([0.75, 0.6, 0.25]))
    lines = check_table(outcomes, ("model", "int8.onnx")).splitlines()
    assert len(lines) == 4
    assert lines[2].split() == ["mine", "3", "model", "1.0000", "1.0000"]
    assert lines[3].split() == ["mine", "3", "int8.onnx", "1.0000", "1.0000", "1.000", "0.175", "(0.200)"]
