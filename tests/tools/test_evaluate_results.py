from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from engine.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["破洞", "stain"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "tools/evaluate_results.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )


def main(*arguments: str | Path) -> None:
    """The same in this process, which saves the seconds to import torch."""
    runpy.run_path(str(ROOT / "tools/evaluate_results.py"))["main"](list(map(str, arguments)))


@pytest.fixture
def truth() -> dict[str, Any]:
    """Two images, the second one with a crowd; sparse, unsorted category ids; no areas."""
    boxes = [(7, 9, [5, 5, 20, 10], 0), (7, 4, [30, 30, 20, 20], 0), (8, 9, [0, 0, 60, 40], 1)]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 64, "width": 80} for i in (7, 8)],
        "categories": [{"id": 9, "name": NAMES[1]}, {"id": 4, "name": NAMES[0]}],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "bbox": b, "iscrowd": crowd}
            for k, (i, c, b, crowd) in enumerate(boxes)
        ],
    }


@pytest.fixture
def config(tmp_path: Path, truth: dict[str, Any]) -> Path:
    (tmp_path / "images").mkdir()
    for image in truth["images"]:
        cv2.imwrite(str(tmp_path / "images" / image["file_name"]), np.zeros((64, 80, 3), np.uint8))
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
MODEL:
  RPN_ONLY: True
  ATSS_ON: True
  BACKBONE:
    CONV_BODY: R-50-FPN-RETINANET
DATASETS:
  ROOT: {tmp_path}
  CATALOG: {{mine: {{img_dir: images, ann_file: truth.json}}}}
  TEST: ("mine",)
"""
    )
    return path


def as_results(truth: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.5}
        for a in truth["annotations"]
        if not a.get("iscrowd", 0)
    ]


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    metrics, thresholds = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("metrics", "thresholds")
    )
    return metrics, thresholds


def test_ground_truth_as_detections(config: Path, truth: dict[str, Any]) -> None:
    (config.parent / "bbox.json").write_text(json.dumps(as_results(truth)))
    done = run("--config-file", config, "--results", config.parent / "bbox.json")
    assert done.returncode == 0, done.stderr
    assert "破洞" in done.stdout and "1.000" in done.stdout
    metrics, thresholds = read(config.parent)
    assert metrics["bbox"]["AP"] == pytest.approx(1)
    assert (thresholds["iou"], thresholds["beta"]) == (0.5, 1)
    assert {c["f_measure"] for c in thresholds["classes"].values()} == {1}


def test_an_empty_list_and_changed_keys(config: Path) -> None:
    (config.parent / "bbox.json").write_text("[]")
    output = config.parent / "out"
    main(
        *("--config-file", config, "--results", config.parent / "bbox.json"),
        *("--dataset", "mine", "--output-dir", output, "TEST.THRESHOLD_BETA", "2.0"),
    )
    metrics, thresholds = read(output)
    assert metrics["bbox"]["AP"] == metrics["bbox"]["AP50"] == 0
    assert thresholds["beta"] == 2
    assert {c["threshold"] for c in thresholds["classes"].values()} == {None}


def test_bad_results_are_one_line(config: Path) -> None:
    path = config.parent / "bbox.json"
    path.write_text('[{"image_id": 7, "category_id": 9, "bbox": [0, 0, 1, 1], "score": NaN}]')
    done = run("--config-file", config, "--results", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [f"error: {path}: entry 0: score must be a finite number, not nan"]


def test_a_configuration_without_test_sets(config: Path) -> None:
    with pytest.raises(InputError, match="DATASETS.TEST is empty"):
        main("--config-file", config, "--results", "none.json", "DATASETS.TEST", "()")


@pytest.mark.parametrize("name", ["tiny_coco", "deeppcb"])
def test_real_ground_truth_as_detections(data_dir: Path, tmp_path: Path, config: Path, name: str) -> None:
    ann_file = data_dir / name / "annotations" / "instances_val.json"
    truth = json.loads(ann_file.read_text())
    (tmp_path / "bbox.json").write_text(json.dumps(as_results(truth)))
    config.write_text(
        f"""
MODEL:
  RPN_ONLY: True
  ATSS_ON: True
  BACKBONE:
    CONV_BODY: R-50-FPN-RETINANET
DATASETS:
  CATALOG: {{val: {{img_dir: {data_dir / name / "val"}, ann_file: {ann_file}}}}}
  TEST: ("val",)
"""
    )
    main("--config-file", config, "--results", tmp_path / "bbox.json")
    metrics, _ = read(tmp_path)
    assert metrics["bbox"]["AP"] == pytest.approx(1)


def test_more_objects_and_detections_than_the_limits(
    config: Path, truth: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    results = [{**entry, "score": 0.4 + 0.1 * k} for k in range(3) for entry in as_results(truth)]
    (config.parent / "bbox.json").write_text(json.dumps(results))
    command = ["--config-file", config, "--results", config.parent / "bbox.json"]
    main(*command)
    assert read(config.parent)[0]["notes"] == [] and "MAX_DETS" not in capsys.readouterr().out
    main(*command, "TEST.MAX_DETS", "2", "TEST.DETECTIONS_PER_IMG", "1")
    metrics, _ = read(config.parent)
    assert metrics["max_dets"] == 2 and {"AR1", "AR2", "AR10", "AR100"} <= set(metrics["bbox"])
    cut = (
        "2 of 6 detections are beyond the best 2 of their image and class (TEST.MAX_DETS); AP and AR do not count them"
    )
    assert metrics["notes"] == [cut]  # there is no model here whose limits could be raised
    printed = capsys.readouterr().out
    assert f"\n{cut}\n" in printed and " AR2" in printed
