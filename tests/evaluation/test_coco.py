from __future__ import annotations

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.errors import InputError
from engine.evaluation.coco import coco_metrics
from tests.evaluation.conftest import annotation_table

BOX = tuple[int, int, list[float]]  # image id, category id, xywh


def annotations(boxes: list[BOX], num_images: int = 2, crowd: tuple[int, ...] = ()) -> dict:
    rows = [
        {
            "id": index,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
            "iscrowd": int(index in crowd),
        }
        for index, (image_id, category_id, bbox) in enumerate(boxes)
    ]
    return {
        "images": [{"id": i} for i in range(num_images)],
        "categories": [{"id": 5, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": rows,
    }


def as_results(coco_dict: dict[str, Any], score: float = 0.9) -> list[dict[str, Any]]:
    """Ground truth turned into detections."""
    keys = ("image_id", "category_id", "bbox")
    return [
        {**{key: gt[key] for key in keys}, "score": score}
        for gt in coco_dict["annotations"]
        if not gt.get("iscrowd", 0)
    ]


TRUTH = annotations([(0, 5, [10, 10, 20, 20]), (0, 2, [50, 50, 200, 200]), (1, 5, [0, 0, 40, 40])])


def test_ground_truth_as_detections_is_perfect() -> None:
    table, untouched = annotation_table(TRUTH), annotation_table(TRUTH)
    metrics = coco_metrics(table, as_results(TRUTH), ["a", "b"], [5, 2])
    assert repr(table) == repr(untouched)
    bbox = metrics["bbox"]
    assert all(bbox[key] == pytest.approx(1) for key in bbox)
    a, b = metrics["per_class"]["a"], metrics["per_class"]["b"]
    assert (a["num_gt"], b["num_gt"]) == (2, 1)
    assert (a["APs"], a["APm"], a["APl"]) == (pytest.approx(1), pytest.approx(1), -1)
    assert (b["APs"], b["APm"], b["APl"]) == (-1, -1, pytest.approx(1))


def test_no_detections_give_zero_where_there_is_ground_truth() -> None:
    truth = annotations([(0, 5, [10, 10, 20, 20])])
    metrics = coco_metrics(annotation_table(truth), [], ["a", "b"], [5, 2])
    assert metrics["bbox"]["AP"] == metrics["bbox"]["AR100"] == metrics["bbox"]["APs"] == 0
    assert metrics["bbox"]["APl"] == -1
    assert metrics["per_class"]["a"]["AP50"] == 0
    assert metrics["per_class"]["b"]["AP50"] == -1
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("results", [[], as_results(TRUTH)])
def test_nothing_to_find_is_undefined(results: list[dict[str, Any]]) -> None:
    metrics = coco_metrics(annotation_table(annotations([])), results, ["a", "b"], [5, 2])
    assert set(metrics["bbox"].values()) == {-1}


def test_no_images() -> None:
    metrics = coco_metrics(annotation_table(annotations([], num_images=0)), [], ["a", "b"], [5, 2])
    assert set(metrics["bbox"].values()) == {-1}


def test_half_of_the_boxes_found_is_worked_by_hand() -> None:
    # recall reaches 1/2 with precision 1: 51 of the 101 recall points count 1
    metrics = coco_metrics(annotation_table(TRUTH), as_results(TRUTH)[:1], ["a", "b"], [5, 2])
    assert metrics["per_class"]["a"]["AP"] == pytest.approx(51 / 101)
    assert metrics["per_class"]["a"]["AR1"] == pytest.approx(1 / 2)
    assert metrics["bbox"]["AP"] == pytest.approx(51 / 202)


def test_an_annotation_of_id_zero_and_mixed_image_ids_are_matched() -> None:
    truth = copy.deepcopy(TRUTH)
    truth["images"][1]["id"] = "second"
    truth["annotations"][2]["image_id"] = "second"
    assert coco_metrics(annotation_table(truth), as_results(truth), ["a", "b"], [5, 2])["bbox"]["AP"] == pytest.approx(
        1
    )


def test_some_of_the_categories() -> None:
    metrics = coco_metrics(annotation_table(TRUTH), as_results(TRUTH), ["b"], [2])
    assert metrics["bbox"]["AP"] == pytest.approx(1)
    assert list(metrics["per_class"]) == ["b"]


def test_ground_truth_is_counted_per_label_without_crowds() -> None:
    table = annotation_table(
        annotations([(0, 5, [0, 0, 2, 2]), (1, 5, [0, 0, 2, 2]), (1, 2, [0, 0, 9, 9])], crowd=(1,))
    )
    for category_ids, expected in (([5, 2], [1, 1]), ([2], [1]), ([77, 2], [0, 1])):
        per_class = coco_metrics(table, [], "ab"[: len(category_ids)], category_ids)["per_class"]
        assert [figures["num_gt"] for figures in per_class.values()] == expected


@pytest.mark.parametrize("change", [{"image_id": 77}, {"category_id": 77}])
def test_results_of_another_data_set_are_an_error(change: dict[str, int]) -> None:
    results = [as_results(TRUTH)[0] | change]
    with pytest.raises(InputError, match="result 0: .*77"):
        coco_metrics(annotation_table(TRUTH), results, ["a", "b"], [5, 2])


def test_classes_of_one_name_are_an_error() -> None:
    with pytest.raises(InputError, match="'a'"):
        coco_metrics(annotation_table(TRUTH), [], ["a", "a"], [5, 2])


def test_equal_to_the_reference(golden_dir: Path) -> None:
    folder = golden_dir / "atss"
    truth, results, figures = (
        json.loads((folder / f"coco_{name}_base.json").read_text()) for name in ("gt", "results", "eval")
    )
    metrics = coco_metrics(annotation_table(truth), results, ["a", "b", "c", "d"], figures["cat_ids"])
    assert list(metrics["bbox"]) == figures["stats_names"]
    assert list(metrics["bbox"].values()) == pytest.approx(figures["stats"], abs=1e-12, rel=0)


@pytest.mark.parametrize("name", ["tiny_coco", "bccd"])
def test_real_ground_truth_as_detections(data_dir: Path, name: str) -> None:
    file = data_dir / name / "annotations" / "instances_val.json"
    truth = json.loads(file.read_text())
    categories = sorted(truth["categories"], key=lambda category: category["id"])
    names, ids = ([category[key] for category in categories] for key in ("name", "id"))
    metrics = coco_metrics(annotation_table(truth), as_results(truth), names, ids)
    # two boxes of bccd have no area, so that nothing matches them
    assert metrics["bbox"]["AP"] == pytest.approx(0.9966 if name == "bccd" else 1, abs=1e-4)


coordinate = st.integers(0, 60).map(float)
extent = st.sampled_from([4.0, 10.0, 30.0, 40.0, 120.0])
box = st.tuples(
    st.integers(0, 1),
    st.sampled_from([5, 2]),
    st.tuples(coordinate, coordinate, extent, extent).map(list),
)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(box, min_size=1, max_size=6),
    st.lists(st.tuples(box, st.integers(1, 4)), min_size=1, max_size=8),
    st.sets(st.integers(0, 5), max_size=2),
)
def test_equal_to_summarize(boxes: list[BOX], found: list[tuple[BOX, int]], crowd: set) -> None:
    """The oracle: pycocotools used as its manual says."""
    truth = annotations(boxes, crowd=tuple(crowd))
    results = [{"image_id": i, "category_id": c, "bbox": b, "score": s / 4} for (i, c, b), s in found]
    metrics = coco_metrics(annotation_table(truth), results, ["a", "b"], [5, 2])
    for gt in truth["annotations"]:
        gt["id"] += 1  # pycocotools takes 0 for "no match"
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        oracle = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    assert list(metrics["bbox"].values()) == pytest.approx(list(oracle.stats), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(box, min_size=1, max_size=12),
    st.lists(st.tuples(box, st.integers(1, 6)), min_size=1, max_size=25),
    st.sampled_from([1, 2, 3, 7, 100, 150]),
)
def test_another_limit_equals_pycocotools_at_that_limit(
    boxes: list[BOX], found: list[tuple[BOX, int]], limit: int
) -> None:
    """Bit for bit: the oracle matches no more than `limit` detections of an image and class."""
    truth = annotations(boxes)
    results = [{"image_id": i, "category_id": c, "bbox": b, "score": s / 6} for (i, c, b), s in found]
    bbox = coco_metrics(annotation_table(truth), results, ["a", "b"], [5, 2], limit)["bbox"]
    assert set(bbox) == {"AP", "AP50", "AP75", "APs", "APm", "APl", "ARs", "ARm", "ARl"} | {
        f"AR{k}" for k in (1, 10, 100, limit)
    }
    for gt in truth["annotations"]:
        gt["id"] += 1
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        oracle = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
        oracle.params.maxDets = [limit]
        oracle.evaluate()
        oracle.accumulate()
    precision, recall = oracle.eval["precision"][..., 0], oracle.eval["recall"][..., 0]
    expected = {f"AP{s}": precision[:, :, :, a] for a, s in enumerate(("", "s", "m", "l"))}
    expected |= {f"AR{s}": recall[:, :, a] for a, s in enumerate((limit, "s", "m", "l"))}
    for name, values in expected.items():
        values = values[values > -1]
        assert bbox[name] == (float(values.mean()) if values.size else -1), name


def test_more_objects_than_coco_counts() -> None:
    """150 objects of a class in an image, all found: at 100 detections a third is lost, at 150 nothing."""
    truth = annotations([(0, 5, [20.0 * k, 0, 10, 10]) for k in range(150)])
    figures = {
        limit: coco_metrics(annotation_table(truth), as_results(truth), ["a", "b"], [5, 2], limit)["bbox"]
        for limit in (100, 150)
    }
    assert figures[100]["AR100"] == figures[150]["AR100"] == pytest.approx(100 / 150)
    assert figures[100]["AP"] == pytest.approx(67 / 101) and "AR150" not in figures[100]
    assert figures[150]["AP"] == figures[150]["AR150"] == figures[150]["ARs"] == pytest.approx(1)
