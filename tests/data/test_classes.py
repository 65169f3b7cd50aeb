from __future__ import annotations

from typing import Any

import pytest

from engine.data.dataset import CocoDataset
from engine.errors import InputError
from engine.evaluation.coco import coco_metrics
from tests.conftest import WriteCoco
from tests.data.conftest import annotation, open_coco

CATEGORIES = ((2, "hole"), (5, "stain"), (9, "scratch"))
ROWS = [
    annotation(1, 2, [1, 1, 4, 4]),
    annotation(1, 5, [10, 1, 4, 4]),
    annotation(1, 9, [1, 10, 4, 4]),
    annotation(2, 5, [2, 2, 4, 4]),
]


@pytest.fixture
def opened(write_coco: WriteCoco) -> Any:
    folder = write_coco([(1, 20, 20), (2, 20, 20)], ROWS, CATEGORIES)

    def open_with(**options: Any) -> CocoDataset:
        return open_coco(folder, **options)

    return open_with


def rows(dataset: CocoDataset, index: int) -> list[tuple[list[float], str | None]]:
    """The boxes of an image with their classes, None for ignore regions."""
    targets = dataset.read(index)[1]
    labels = targets.labels.masked_fill(targets.ignore, -1).tolist()
    names = [None if label < 0 else dataset.class_names[label] for label in labels]
    return list(zip(targets.boxes.tolist(), names, strict=True))


def test_classes_in_the_order_given_and_others_dropped(opened: Any) -> None:
    dataset = opened(kept_classes=["scratch", "hole"], other_classes="drop")
    assert dataset.class_names == ["scratch", "hole"] and dataset.category_ids == [9, 2]
    assert rows(dataset, 0) == [([1, 1, 5, 5], "hole"), ([1, 10, 5, 14], "scratch")]
    assert rows(dataset, 1) == []
    assert len(opened(kept_classes=["scratch"], other_classes="drop", filter_empty=True)) == 1


def test_others_as_ignore_regions(opened: Any) -> None:
    dataset = opened(kept_classes=["scratch", "hole"], other_classes="ignore")
    assert rows(dataset, 0) == [([1, 1, 5, 5], "hole"), ([10, 1, 14, 5], None), ([1, 10, 5, 14], "scratch")]
    assert rows(dataset, 1) == [([2, 2, 6, 6], None)]
    # For metrics a region counts for each class: 2 boxes, and 2 regions of 2 classes.
    assert int(dataset.annotations.crowd.sum()) == 4 and len(dataset.annotations.crowd) == 6


@pytest.mark.parametrize(("others", "precision"), [("drop", 0.5), ("ignore", 1.0)])
def test_metrics_count_the_kept_classes_only(opened: Any, others: str, precision: float) -> None:
    dataset = opened(kept_classes=["hole"], other_classes=others)
    results = [
        {"image_id": 2, "category_id": 2, "bbox": [2, 2, 4, 4], "score": 0.9},  # on a stain
        {"image_id": 1, "category_id": 2, "bbox": [1, 1, 4, 4], "score": 0.5},
        {"image_id": 1, "category_id": 9, "bbox": [1, 10, 4, 4], "score": 0.9},  # a class that is not tested
    ]
    metrics = coco_metrics(dataset.annotations, results, dataset.class_names, dataset.category_ids)
    assert metrics["bbox"]["AP50"] == pytest.approx(precision)
    assert metrics["per_class"].keys() == {"hole"} and metrics["per_class"]["hole"]["num_gt"] == 1


def test_labels_of_a_model_with_more_classes(opened: Any) -> None:
    names = ["stain", "hole", "dirt", "scratch"]
    dataset = opened(class_names=names, kept_classes=["hole", "dirt"], other_classes="drop")
    assert dataset.class_names == names and rows(dataset, 0) == [([1, 1, 5, 5], "hole")]


def test_an_unknown_class_is_named_with_the_nearest(opened: Any) -> None:
    with pytest.raises(InputError, match=r"DATASETS.CLASSES: 'scrach' is not a class of .*ann.json; did you mean scr"):
        opened(kept_classes=["scrach"], other_classes="drop")
    with pytest.raises(InputError, match=r"'zz' is not a class of the model \(it has 'hole'\)"):
        opened(class_names=["hole"], kept_classes=["zz"], other_classes="drop")


def test_names_are_matched_by_their_normal_form(write_coco: WriteCoco) -> None:
    composed, decomposed = "d\u00e9faut", "de\u0301faut "
    folder = write_coco([(1, 20, 20)], [annotation(1, 2)], ((2, composed), (3, "trou")))
    dataset = open_coco(folder, class_names=["trou ", decomposed])
    assert dataset.class_names == ["trou ", decomposed] and dataset.category_ids == [3, 2]
    assert rows(dataset, 0)[0][1] == decomposed
    assert open_coco(folder, kept_classes=[decomposed], other_classes="drop").category_ids == [2]
