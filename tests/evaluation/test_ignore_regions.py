"""Ignore regions from the annotation file to the transformed image, the metrics and the thresholds."""

from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.data.transforms import random_state, train_transform
from engine.evaluation.coco import coco_metrics
from engine.evaluation.matches import match_detections
from engine.evaluation.thresholds import RULES, fmeasure_thresholds
from engine.structures import CONTINUOUS, INCLUSIVE
from tests.conftest import WriteCoco
from tests.data.conftest import annotation, open_coco

REGION = {"iscrowd": {"iscrowd": 1}, "ignore": {"ignore": 1}}
CATEGORIES = [{"id": 3, "name": "scratch"}, {"id": 7, "name": "hole"}]


@pytest.mark.parametrize("convention", [CONTINUOUS, INCLUSIVE], ids=["continuous", "inclusive"])
@pytest.mark.parametrize("flag", REGION)
def test_a_region_is_resized_and_mirrored_like_a_box(write_coco: WriteCoco, convention: Any, flag: str) -> None:
    box = [4, 6, 12, 10]
    rows = [annotation(1, 7, box), annotation(1, 7, box, **REGION[flag]), annotation(1, 3, [20, 2, 9, 7])]
    dataset = open_coco(write_coco([(1, 40, 60)], rows))
    transform = train_transform(
        (32, 64, 90), 120, (0.0,) * 3, (1.0,) * 3, vertical_flip=0.5, convention=convention, jitter=(0.2, 0, 0, 0)
    )
    sizes = set()
    for position in range(12):
        with random_state(0, position):
            _, targets = transform(*dataset.read(0))
        assert targets.ignore.tolist() == [False, True, False] and targets.labels.tolist() == [1, 1, 0]
        assert torch.equal(targets.boxes[0], targets.boxes[1])
        sizes.add((targets.size, tuple(targets.boxes[1].tolist())))
    assert len(sizes) > 5


coordinate, extent = st.sampled_from([0.0, 4.0, 8.0, 20.0, 40.0]), st.sampled_from([6.0, 10.0, 20.0, 40.0])
box = st.tuples(coordinate, coordinate, extent, extent).map(list)
truth = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([3, 7]), box, st.sampled_from(["", *REGION])), max_size=8)
found = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([3, 7]), box, st.integers(1, 6)), min_size=1, max_size=15)


def results_of(rows: list[tuple]) -> list[dict[str, Any]]:
    return [{"image_id": i, "category_id": c, "bbox": b, "score": score / 8} for i, c, b, score in rows]


def open_file(folder: Path, rows: list[tuple]) -> Any:
    (folder / "images").mkdir(exist_ok=True)
    data = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 100, "width": 100} for i in range(2)],
        "categories": CATEGORIES,
        "annotations": [annotation(i, c, b, **REGION.get(flag, {})) for i, c, b, flag in rows],
    }
    (folder / "ann.json").write_text(json.dumps(data))
    return open_coco(folder)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(truth, found)
def test_metrics_of_a_file_equal_those_of_pycocotools(tmp_path: Path, rows: list[tuple], others: list[tuple]) -> None:
    """`ignore` counts as `iscrowd`, which is what pycocotools is given here: by itself it overlooks `ignore`."""
    dataset, results = open_file(tmp_path, rows), results_of(others)
    metrics = coco_metrics(dataset.annotations, results, dataset.class_names, dataset.category_ids)
    coco = COCO()
    annotations = [
        {"id": k, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": int(bool(flag))}
        for k, (i, c, b, flag) in enumerate(rows, start=1)
    ]
    coco.dataset = {"images": [{"id": 0}, {"id": 1}], "categories": CATEGORIES, "annotations": annotations}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        oracle = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    assert list(metrics["bbox"].values()) == pytest.approx(list(oracle.stats), abs=1e-12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(truth, found, st.lists(st.tuples(st.floats(60, 68), st.floats(60, 68), st.integers(1, 9)), max_size=4))
def test_detections_in_a_region_are_neither_hits_nor_false(
    tmp_path: Path, rows: list[tuple], others: list[tuple], inside: list[tuple]
) -> None:
    region = (0, 7, [70.0, 70.0, 20.0, 20.0], "ignore")
    dataset = open_file(tmp_path, [*rows, region])
    in_region = [(0, 7, [x, y, 22.0, 22.0], score) for x, y, score in inside if min(x, y) > 66]
    in_region += [(0, 7, [72.0, 75.0, 5.0, 8.0], score) for _, _, score in inside]
    answers = []
    for extra in ([], in_region):
        results = results_of([*others, *extra])
        matches = match_detections(dataset.annotations, results, dataset.category_ids, [0.5])
        thresholds = [fmeasure_thresholds(matches, dataset.class_names, rule=rule) for rule in RULES]
        metrics = coco_metrics(dataset.annotations, results, dataset.class_names, dataset.category_ids)
        answers.append((thresholds, metrics["bbox"]["AP50"]))
    assert answers[0] == answers[1]
