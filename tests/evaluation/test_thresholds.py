from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.evaluation.matches import match_detections
from engine.evaluation.thresholds import best_threshold, fmeasure_thresholds
from tests.evaluation.conftest import annotation_table

T, F = True, False


@pytest.mark.parametrize(
    ("scores", "is_true", "num_gt", "beta", "expected"),
    [
        # perfect: everything found, nothing else
        ([0.9, 0.8], [T, T], 2, 1, (0.8, 1, 1, 1)),
        # (tp, found): (1,1) f 2/3, (1,2) f 1/2, (2,3) f 4/5
        ([0.9, 0.8, 0.7], [T, F, T], 2, 1, (0.7, 4 / 5, 2 / 3, 1)),
        # the same, entered in another order
        ([0.7, 0.9, 0.8], [T, T, F], 2, 1, (0.7, 4 / 5, 2 / 3, 1)),
        # ties are one group: stopping after the true one of 0.5 is no threshold; f 2*1/(2+1) = 2/3
        # at 0.9, 2*2/(2+3) = 4/5 at 0.5
        ([0.9, 0.5, 0.5], [T, T, F], 2, 1, (0.5, 4 / 5, 2 / 3, 1)),
        # all tied: two of four
        ([0.5] * 4, [F, T, F, T], 3, 1, (0.5, 4 / 7, 1 / 2, 2 / 3)),
        # equal f (2/3 at 0.9 and at 0.6): the higher threshold
        ([0.9, 0.8, 0.7, 0.6], [T, F, F, T], 2, 1, (0.9, 2 / 3, 1, 1 / 2)),
        # recall weighs twice: (1+4)*tp / (4*2 + found): 5/9, 5/10, 5/11, 10/12
        ([0.9, 0.8, 0.7, 0.6], [T, F, F, T], 2, 2, (0.6, 10 / 12, 1 / 2, 1)),
        # precision weighs twice: 1.25*tp / (0.5 + found): 1.25/1.5, ...
        ([0.9, 0.8, 0.7, 0.6], [T, F, F, T], 2, 0.5, (0.9, 1.25 / 1.5, 1, 1 / 2)),
        # a wrong one first
        ([0.9, 0.8], [F, T], 1, 1, (0.8, 2 / 3, 1 / 2, 1)),
        # scores may be zero
        ([0.0], [T], 1, 1, (0.0, 1, 1, 1)),
    ],
)
def test_best_threshold(scores: list[float], is_true: list[bool], num_gt: int, beta: float, expected: tuple) -> None:
    found = best_threshold(np.array(scores), np.array(is_true), num_gt, beta)
    assert found == pytest.approx(expected)
    assert found.threshold in scores


@pytest.mark.parametrize(("scores", "is_true", "num_gt"), [([], [], 0), ([], [], 3), ([0.5], [F], 0), ([0.5], [F], 2)])
def test_best_threshold_without_a_true_detection(scores: list[float], is_true: list[bool], num_gt: int) -> None:
    assert best_threshold(np.array(scores), np.array(is_true, dtype=bool), num_gt) is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12),
    st.integers(0, 3),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_equal_to_trying_every_threshold(found: list[tuple[int, bool]], num_missed: int, beta: float) -> None:
    scores = np.array([score / 7 for score, _ in found])
    is_true = np.array([true for _, true in found])
    num_gt = int(is_true.sum()) + num_missed
    best = best_threshold(scores, is_true, num_gt, beta)
    brute = 0.0
    for threshold in scores:
        kept = scores >= threshold
        precision, recall = is_true[kept].mean(), is_true[kept].sum() / max(num_gt, 1)
        if precision + recall:
            f = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
            brute = max(brute, f)
    assert (best.f_measure if best else 0.0) == pytest.approx(brute)
    if best:
        kept = scores >= best.threshold
        assert best.precision == pytest.approx(is_true[kept].mean())
        assert best.recall == pytest.approx(is_true[kept].sum() / num_gt)


SQUARE, FAR = [10.0, 10.0, 20.0, 20.0], [200.0, 200.0, 20.0, 20.0]
SHIFTED = [15.0, 10.0, 20.0, 20.0]  # IoU with SQUARE: 15 / 25 = 0.6


def truth(*boxes: tuple[int, list[float], int]) -> dict[str, Any]:
    """Image 1 with (category id, xywh, is crowd) boxes of the categories 4 and 9."""
    rows = [
        {"id": i, "image_id": 1, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": crowd}
        for i, (c, b, crowd) in enumerate(boxes)
    ]
    categories = [{"id": 4, "name": "a"}, {"id": 9, "name": "b"}]
    return {"images": [{"id": 1}], "categories": categories, "annotations": rows}


def result(category_id: int, bbox: list[float], score: float) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category_id, "bbox": bbox, "score": score}


def thresholds(coco_dict: dict, results: list[dict], **options: Any) -> dict[str, Any]:
    matches = match_detections(annotation_table(coco_dict), results, [4, 9], [options.get("iou", 0.5)])
    return fmeasure_thresholds(matches, ["a", "b"], **options)


def test_perfect_detections() -> None:
    found = thresholds(truth((4, SQUARE, 0), (4, FAR, 0)), [result(4, SQUARE, 0.5), result(4, FAR, 0.7)])
    a = {"threshold": 0.5, "f_measure": 1.0, "precision": 1.0, "recall": 1.0, "num_gt": 2}
    assert (found["iou"], found["beta"]) == (0.5, 1.0)
    assert found["classes"]["a"] == a


def test_a_class_without_a_threshold_says_why() -> None:
    empty = {"threshold": None, "f_measure": None, "precision": None, "recall": None}
    coco_dict = truth((4, SQUARE, 0), (9, FAR, 1))
    for results in ([], [result(4, FAR, 0.9), result(9, SQUARE, 0.9)]):
        classes = thresholds(coco_dict, results)["classes"]
        reason = "no detection matches ground truth"
        assert classes["a"] == empty | {"num_gt": 1, "reason": reason}
        assert classes["b"] == empty | {"num_gt": 0, "reason": "only crowd ground truth"}
    classes = thresholds(truth(), [result(4, SQUARE, 0.9)])["classes"]
    assert classes["a"] == empty | {"num_gt": 0, "reason": "no ground truth"}


def test_a_detection_in_a_crowd_counts_for_nothing() -> None:
    coco_dict = truth((4, SQUARE, 0), (4, FAR, 1))
    in_crowd = [result(4, [205.0, 205.0, 5.0, 5.0], 0.95), result(4, FAR, 0.2)]
    a = thresholds(coco_dict, [result(4, SQUARE, 0.5), *in_crowd])["classes"]["a"]
    assert (a["threshold"], a["f_measure"], a["num_gt"]) == (0.5, 1, 1)


def test_iou_decides_what_is_true() -> None:
    coco_dict, results = truth((4, SQUARE, 0)), [result(4, SHIFTED, 0.5)]
    assert thresholds(coco_dict, results, iou=0.55)["classes"]["a"]["f_measure"] == 1
    assert thresholds(coco_dict, results, iou=0.65)["classes"]["a"]["threshold"] is None


def test_more_than_a_hundred_detections_an_image_all_count() -> None:
    false = [result(4, FAR, 0.9)] * 150
    a = thresholds(truth((4, SQUARE, 0)), [*false, result(4, SQUARE, 0.5)])["classes"]["a"]
    assert (a["threshold"], a["recall"], a["precision"]) == (0.5, 1, pytest.approx(1 / 151))


@pytest.mark.parametrize("options", [{"iou": 0}, {"iou": 1.5}, {"beta": 0}, {"rule": "best"}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        thresholds(truth(), [], **options)


def test_matches_at_another_iou_are_refused() -> None:
    matches = match_detections(annotation_table(truth((4, SQUARE, 0))), [], [4, 9], [0.5, 0.75])
    with pytest.raises(ValueError, match="no matches at IoU 0.6, only at 0.5, 0.75"):
        fmeasure_thresholds(matches, ["a", "b"], iou=0.6)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 3)), min_size=1, max_size=6),
)
def test_matching_only_what_is_above_the_threshold_gives_the_same(
    boxes: list[tuple[int, bool]], found: list[tuple[int, int]]
) -> None:
    coco_dict = truth(*((4, [x * 5.0, 0.0, 20.0, 20.0], int(crowd)) for x, crowd in boxes))
    results = [result(4, [x * 5.0, 0.0, 20.0, 20.0], score / 4) for x, score in found]
    best = thresholds(coco_dict, results)["classes"]["a"]
    f_measures = {}
    for threshold in {r["score"] for r in results}:
        above = sorted((r for r in results if r["score"] >= threshold), key=lambda r: -r["score"])
        levelled = [r | {"score": 0.5} for r in above]
        entry = thresholds(coco_dict, levelled)["classes"]["a"]
        f_measures[threshold] = entry["f_measure"] or 0.0
    assert (best["f_measure"] or 0.0) == pytest.approx(max(f_measures.values()))
    if best["threshold"] is not None:
        assert f_measures[best["threshold"]] == pytest.approx(best["f_measure"])


def test_the_interpolated_rule_equals_the_reference(golden_dir: Path) -> None:
    folder = golden_dir / "atss"
    coco_dict, results, figures = (
        json.loads((folder / f"coco_{name}_base.json").read_text()) for name in ("gt", "results", "eval")
    )
    matches = match_detections(annotation_table(coco_dict), results, figures["cat_ids"], [0.3, 0.5])
    names = ["a", "b", "c", "d"]
    entries = fmeasure_thresholds(matches, names, rule="interpolated")["classes"].values()
    assert [entry["threshold"] for entry in entries] == figures["thresholds"]
    f_measures = [entry["f_measure"] for entry in entries]
    assert f_measures == pytest.approx(figures["max_f_measure"], abs=1e-12)
    for entry in fmeasure_thresholds(matches, names)["classes"].values():
        # what the raw rule promises is a ratio of counts
        num_true = entry["recall"] * entry["num_gt"]
        assert num_true == pytest.approx(round(num_true))


def test_the_interpolated_rule_keeps_a_hundred_detections_per_image_and_class() -> None:
    for num_false, found in ((99, 1), (100, 0)):
        results = [result(4, FAR, 0.9)] * num_false + [result(4, SQUARE, 0.5)]
        a = thresholds(truth((4, SQUARE, 0)), results, rule="interpolated")["classes"]["a"]
        assert (a["recall"] or 0) == found


def test_the_interpolated_rule_without_a_threshold() -> None:
    classes = thresholds(truth((4, SQUARE, 0)), [], rule="interpolated")["classes"]
    assert [entry["threshold"] for entry in classes.values()] == [None, None]
