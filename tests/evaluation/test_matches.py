from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from engine.errors import InputError
from engine.evaluation.coco import coco_metrics
from engine.evaluation.matches import NO_MATCH, Matches, match_detections, rows_per_label
from tests.evaluation.conftest import annotation_table

CATEGORY_IDS = [5, 2]  # label k -> category id
IOUS = [0.5, 0.75]

Found = tuple[int, int, list[float], float]  # image id, category id, xywh, score


def world(boxes: list[tuple], num_images: int = 2) -> dict[str, Any]:
    """Boxes (image id, category id, xywh, is crowd) in images `num_images` - 1, ..., 1, 0."""
    return {
        "images": [{"id": i} for i in reversed(range(num_images))],
        "categories": [{"id": 2, "name": "b"}, {"id": 5, "name": "a"}, {"id": 7, "name": "c"}],
        "annotations": [
            {"id": k, "image_id": i, "category_id": c, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": int(crowd)}
            for k, (i, c, bbox, crowd) in enumerate(boxes, 1)
        ],
    }


def results_of(found: list[Found]) -> list[dict[str, Any]]:
    return [{"image_id": i, "category_id": c, "bbox": bbox, "score": score} for i, c, bbox, score in found]


def matched(boxes: list[tuple], found: list[Found], **options: Any) -> Matches:
    return match_detections(annotation_table(world(boxes, **options)), results_of(found), CATEGORY_IDS, IOUS)


def test_worked_by_hand() -> None:
    boxes = [
        (1, 2, [0.0, 0.0, 10.0, 10.0], False),
        (0, 5, [0.0, 0.0, 40.0, 20.0], True),  # a crowd region
        (0, 5, [0.0, 0.0, 10.0, 10.0], False),
        (0, 7, [0.0, 0.0, 10.0, 10.0], False),  # of a category that is not evaluated
        (0, 5, [50.0, 0.0, 10.0, 10.0], False),
    ]
    found = [
        (1, 5, [0.0, 0.0, 10.0, 10.0], 0.9),  # 0: nothing of its class in this image
        (0, 5, [0.0, 0.0, 10.0, 6.0], 0.3),  # 1: IoU 0.6 with a box that detection 3 takes at 0.5; inside the crowd
        (0, 7, [0.0, 0.0, 10.0, 10.0], 0.8),  # 2: not evaluated
        (0, 5, [0.0, 0.0, 10.0, 7.5], 0.7),  # 3: IoU 0.75
        (0, 5, [70.0, 0.0, 10.0, 10.0], 0.7),  # 4: nothing there
        (1, 2, [0.0, 0.0, 10.0, 6.0], 0.2),  # 5: IoU 0.6
    ]
    matches = matched(boxes, found, num_images=3)
    assert (matches.iou_thresholds.tolist(), matches.num_images, matches.num_classes) == (IOUS, 3, 2)

    # Label 0 (category 5): image 0 with scores 0.7, 0.7, 0.3, then image 1; label 1: image 1. Images stand in reverse.
    detections = matches.detections
    assert detections.result_rows.tolist() == [3, 4, 1, 0, 5]
    assert detections.image_rows.tolist() == [2, 2, 2, 1, 1]
    assert detections.labels.tolist() == [0, 0, 0, 0, 1]
    assert detections.scores.tolist() == [0.7, 0.7, 0.3, 0.9, 0.2]
    assert detections.ranks.tolist() == [0, 1, 2, 0, 0]
    # boxes: 0 crowd, 1 found, 2 missed (image 0, label 0), 3 (image 1, label 1)
    assert detections.gt_rows.tolist() == [[1, -1, 0, -1, 3], [1, -1, 0, -1, -1]]
    assert detections.ious == pytest.approx(np.array([[0.75, 0, 1, 0, 0.6], [0.75, 0, 1, 0, 0]]))
    assert detections.ignored.tolist() == [[False, False, True, False, False]] * 2

    ground_truth = matches.ground_truth
    assert ground_truth.annotation_rows.tolist() == [1, 2, 4, 0]
    assert ground_truth.image_rows.tolist() == [2, 2, 2, 1]
    assert ground_truth.labels.tolist() == [0, 0, 0, 1]
    assert ground_truth.areas.tolist() == [800, 100, 100, 100]
    assert ground_truth.crowd.tolist() == ground_truth.ignored.tolist() == [True, False, False, False]
    assert ground_truth.detection_rows.tolist() == [[2, 0, -1, 4], [2, 0, -1, -1]]


@pytest.mark.parametrize(
    ("boxes", "found", "num_images"),
    [
        ([], [], 0),
        ([], [], 2),
        ([], [(0, 5, [0.0, 0.0, 9.0, 9.0], 0.5)], 1),
        ([(0, 2, [0.0, 0.0, 9.0, 9.0], False)], [], 1),
    ],
)
def test_documented_shapes_and_types(boxes: list[tuple], found: list[Found], num_images: int) -> None:
    matches = matched(boxes, found, num_images=num_images)
    assert matches.iou_thresholds.dtype == np.float64
    for table, num_rows, per_threshold in (
        (matches.detections, len(found), ("gt_rows", "ious", "ignored")),
        (matches.ground_truth, len(boxes), ("detection_rows",)),
    ):
        for name, array in vars(table).items():
            assert array.shape == ((len(IOUS), num_rows) if name in per_threshold else (num_rows,)), name
            expected = {"ignored": bool, "crowd": bool, "scores": float, "ious": float, "areas": float}
            assert array.dtype == expected.get(name, np.int64), name


def test_thresholds_are_found_by_value() -> None:
    table = annotation_table(world([]))
    matches = match_detections(table, [], CATEGORY_IDS, np.linspace(0.5, 0.95, 10))
    assert [matches.threshold_index(iou) for iou in (0.5, 0.6, 0.95)] == [0, 2, 9]
    with pytest.raises(ValueError, match="no matches at IoU 0.52"):
        matches.threshold_index(0.52)
    for iou in (0, 1.5, -1, float("nan")):
        with pytest.raises(InputError, match=rf"must be in \(0, 1\], not {iou}"):
            match_detections(table, [], CATEGORY_IDS, [0.5, iou])


def test_results_of_another_data_set_are_an_error() -> None:
    good = (0, 5, [0.0, 0.0, 9.0, 9.0], 0.5)
    for bad in ((0, 8, *good[2:]), (4, 5, *good[2:])):
        with pytest.raises(InputError, match="result 1: (image_id 4|category_id 8) is not in the annotations"):
            matched([], [good, bad])


def test_rows_per_label() -> None:
    assert [rows.tolist() for rows in rows_per_label(np.array([1, 0, 1]), 3)] == [[1], [0, 2], []]
    assert rows_per_label(np.zeros(0, np.int64), 0) == []


# ---------------------------------------------------------------- equal to pycocotools

coordinate = st.integers(0, 40).map(float)
extent = st.sampled_from([4.0, 10.0, 30.0, 40.0, 120.0])
box = st.tuples(
    st.integers(0, 2), st.sampled_from([5, 2, 7]), st.tuples(coordinate, coordinate, extent, extent).map(list)
)
boxes_with_crowds = st.lists(st.tuples(box, st.booleans()).map(lambda b: (*b[0], b[1])), max_size=8)
many_found = st.lists(st.tuples(box, st.integers(1, 3)).map(lambda f: (*f[0], f[1] / 4)), max_size=12)


def average_precision(matches: Matches, index: int) -> list[float]:
    """AP of each class at the IoU threshold `index` from the best 100 detections per image; -1 without ground truth."""
    detections, figures = matches.detections, []
    for label in range(matches.num_classes):
        num_gt = np.sum((matches.ground_truth.labels == label) & ~matches.ground_truth.ignored)
        rows = (detections.labels == label) & (detections.ranks < 100) & ~detections.ignored[index]
        order = np.argsort(-detections.scores[rows], kind="stable")
        num_true = np.cumsum((detections.gt_rows[index][rows] != NO_MATCH)[order])
        precision, recall = num_true / np.arange(1, len(order) + 1), num_true / max(num_gt, 1)
        best = [max(precision[recall >= point], default=0.0) for point in np.linspace(0, 1, 101)]
        figures.append(float(np.mean(best)) if num_gt else -1.0)
    return figures


@settings(max_examples=60, deadline=None)
@given(boxes_with_crowds, many_found)
def test_ap50_of_the_matches_is_that_of_pycocotools(boxes: list[tuple], found: list[Found]) -> None:
    table = annotation_table(world(boxes, num_images=3))
    matches = match_detections(table, results_of(found), CATEGORY_IDS, IOUS)
    metrics = coco_metrics(table, results_of(found), ["a", "b"], CATEGORY_IDS)
    for figure, iou in (("AP50", 0.5), ("AP75", 0.75)):
        per_class = average_precision(matches, matches.threshold_index(iou))
        assert [metrics["per_class"][name][figure] for name in ("a", "b")] == pytest.approx(per_class, abs=1e-12)
        defined = [ap for ap in per_class if ap >= 0]
        assert metrics["bbox"][figure] == pytest.approx(np.mean(defined) if defined else -1)


def oracle(boxes: list[tuple], found: list[Found]) -> COCOeval:
    """pycocotools used as its manual says, at the thresholds of this file."""
    coco, coco_found = COCO(), COCO()
    with contextlib.redirect_stdout(io.StringIO()):
        coco.dataset = world(boxes, num_images=3)
        coco.createIndex()
        rows = [{**row, "id": k, "area": row["bbox"][2] * row["bbox"][3]} for k, row in enumerate(results_of(found), 1)]
        coco_found.dataset = {**coco.dataset, "annotations": [row | {"iscrowd": 0} for row in rows]}
        coco_found.createIndex()
        evaluation = COCOeval(coco, coco_found, "bbox")
        evaluation.params.iouThrs = np.array(IOUS)
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.evaluate()
    return evaluation


@settings(max_examples=60, deadline=None)
@given(boxes_with_crowds, many_found)
def test_every_row_is_that_of_pycocotools(boxes: list[tuple], found: list[Found]) -> None:
    matches = matched(boxes, found, num_images=3)
    detections, ground_truth = matches.detections, matches.ground_truth
    # ids of the oracle are 1 + row of the annotations and results; the last entry is for NO_MATCH = -1
    gt_ids = np.append(ground_truth.annotation_rows + 1, 0)
    det_ids = np.append(detections.result_rows + 1, 0)
    evaluation = oracle(boxes, found)
    num_seen = np.zeros(2, dtype=int)
    for cell in evaluation.evalImgs:
        if cell is None or cell["category_id"] not in CATEGORY_IDS:
            continue
        rows = [det_ids.tolist().index(id_) for id_ in cell["dtIds"]]
        gt_rows = [gt_ids.tolist().index(id_) for id_ in cell["gtIds"]]
        num_seen += len(rows), len(gt_rows)
        assert detections.ranks[rows].tolist() == list(range(len(rows)))
        assert detections.scores[rows].tolist() == cell["dtScores"]
        assert {CATEGORY_IDS[label] for label in detections.labels[rows]} <= {cell["category_id"]}
        assert {2 - row for row in detections.image_rows[rows]} <= {cell["image_id"]}  # images stand in reverse
        assert gt_ids[detections.gt_rows[:, rows]].tolist() == cell["dtMatches"].tolist()
        assert detections.ignored[:, rows].tolist() == cell["dtIgnore"].tolist()
        assert det_ids[ground_truth.detection_rows[:, gt_rows]].tolist() == cell["gtMatches"].tolist()
        assert ground_truth.ignored[gt_rows].tolist() == [bool(ignored) for ignored in cell["gtIgnore"]]
        ious = evaluation.ious[cell["image_id"], cell["category_id"]]
        columns = {id_: column for column, id_ in enumerate(sorted(cell["gtIds"]))}
        for (t, rank), id_ in np.ndenumerate(cell["dtMatches"]):
            assert detections.ious[t, rows[rank]] == (ious[rank, columns[int(id_)]] if id_ else 0)
    assert num_seen.tolist() == [len(detections.labels), len(ground_truth.labels)]
