"""Classes renamed, merged and taken out (`DATASETS.CLASS_MAP`), and a background that is no class."""

from __future__ import annotations

from typing import Any

import pytest

from engine.data.classes import ClassMap
from engine.data.dataset import CocoDataset
from engine.errors import InputError
from engine.evaluation.coco import coco_metrics
from engine.evaluation.results import read_results, to_coco_results
from engine.files import write_json
from engine.structures import Detections
from tests.conftest import WriteCoco
from tests.data.conftest import annotation, open_coco
from tests.data.test_classes import CATEGORIES, ROWS, rows

HOLE, STAIN, SCRATCH = [1, 1, 5, 5], [10, 1, 14, 5], [1, 10, 5, 14]
BACKGROUND = (0, "background")


@pytest.fixture
def opened(write_coco: WriteCoco) -> Any:
    """The data set of `test_classes`: hole 2, stain 5, scratch 9."""
    folder = write_coco([(1, 20, 20), (2, 20, 20)], ROWS, CATEGORIES)

    def open_with(new_names: dict[str, str], nameless: str = "drop", **options: Any) -> CocoDataset:
        return open_coco(folder, class_map=ClassMap(new_names, nameless), **options)

    return open_with


def test_renamed(opened: Any) -> None:
    dataset = opened({"stain": "dirt"})
    assert dataset.class_names == ["hole", "dirt", "scratch"] and dataset.category_ids == [2, 5, 9]
    assert dataset.file_class_names == ["hole", "stain", "scratch"]
    assert rows(dataset, 0) == [(HOLE, "hole"), (STAIN, "dirt"), (SCRATCH, "scratch")]


def test_merged_classes_have_the_lowest_of_their_ids(opened: Any) -> None:
    dataset = opened({"scratch": "damage", "hole": "damage"})
    assert dataset.class_names == ["damage", "stain"] and dataset.category_ids == [2, 5]
    assert rows(dataset, 0) == [(HOLE, "damage"), (STAIN, "stain"), (SCRATCH, "damage")]
    into_a_present_one = opened({"scratch": "hole"})
    assert into_a_present_one.class_names == ["hole", "stain"] and into_a_present_one.category_ids == [2, 5]


def test_each_name_is_looked_up_once(opened: Any) -> None:
    chain = opened({"hole": "stain", "stain": "scratch", "scratch": "dirt"})
    assert [name for _, name in rows(chain, 0)] == ["stain", "scratch", "dirt"] == chain.class_names
    circle = opened({"hole": "stain", "stain": "hole"})
    assert [name for _, name in rows(circle, 0)] == ["stain", "hole", "scratch"]


@pytest.mark.parametrize(("nameless", "left"), [("drop", []), ("ignore", [(STAIN, None)])])
def test_a_class_without_a_name(opened: Any, nameless: str, left: list) -> None:
    dataset = opened({"stain": ""}, nameless)
    assert dataset.class_names == ["hole", "scratch"] and dataset.category_ids == [2, 9]
    assert rows(dataset, 0) == [(HOLE, "hole"), *left, (SCRATCH, "scratch")]
    assert dataset.num_boxes(1) == 0
    renamed_onto_it = opened({"stain": "", "hole": "stain"}, nameless)
    assert renamed_onto_it.class_names == ["stain", "scratch"]
    assert rows(renamed_onto_it, 0) == [(HOLE, "stain"), *left, (SCRATCH, "scratch")]


def test_the_selection_comes_after_it(opened: Any) -> None:
    options = {"kept_classes": ["damage"], "other_classes": "ignore"}
    dataset = opened({"hole": "damage", "scratch": "damage"}, **options)
    assert rows(dataset, 0) == [(HOLE, "damage"), (STAIN, None), (SCRATCH, "damage")]
    with pytest.raises(InputError, match="'hole' is not a class of .*ann.json"):
        opened({"hole": "damage", "scratch": "damage"}, kept_classes=["hole"], other_classes="drop")


def test_labels_of_a_model(opened: Any) -> None:
    dataset = opened({"hole": "damage", "scratch": "damage"}, class_names=["stain", "dirt", "damage"])
    assert [name for _, name in rows(dataset, 0)] == ["damage", "stain", "damage"]
    assert dataset.category_ids[::2] == [5, 2]
    with pytest.raises(InputError, match="classes that are not trained: 'damage'"):
        opened({"hole": "damage"}, class_names=["stain", "hole", "scratch"])


def test_nothing_left(opened: Any) -> None:
    with pytest.raises(InputError, match="ann.json: DATASETS.CLASS_MAP leaves none of its classes"):
        opened(dict.fromkeys(("hole", "stain", "scratch"), ""))


def test_names_are_compared_in_their_normal_form(write_coco: WriteCoco) -> None:
    composed, decomposed = "d\u00e9faut", "de\u0301faut "
    folder = write_coco([(1, 20, 20)], [annotation(1, 2)], ((2, composed), (3, "trou")))
    for name in (composed, decomposed):
        dataset = open_coco(folder, class_map=ClassMap({name: " trou "}))
        assert dataset.class_names == ["trou"] and dataset.category_ids == [2]


def test_metrics_and_results_follow(opened: Any, tmp_path: Any) -> None:
    import torch

    dataset = opened({"scratch": "damage", "hole": "damage", "stain": ""})
    boxes = torch.tensor([HOLE, SCRATCH], dtype=torch.float32)
    found = Detections(boxes, torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), (20, 20))
    own = to_coco_results({1: found}, dataset.category_ids)
    assert [entry["category_id"] for entry in own] == [2, 2]
    # A model of the three classes of the file: its ids are read as those of the merged class, or left out.
    other = [{**own[0], "category_id": 2}, {**own[1], "category_id": 9}, {**own[1], "category_id": 5}]
    for results in (own, other):
        write_json(tmp_path / "bbox.json", results)
        read = read_results(tmp_path / "bbox.json", dataset.annotations, dataset.merged_ids)
        metrics = coco_metrics(dataset.annotations, read, dataset.class_names, dataset.category_ids)
        assert metrics["bbox"]["AP"] == pytest.approx(1) and list(metrics["per_class"]) == ["damage"]


# ---------------------------------------------------------------- background


@pytest.mark.parametrize("name", ["background", "__background__", "_background_", "Background", "\u80cc\u666f"])
@pytest.mark.parametrize("number", [0, 4])
def test_a_background_class_is_said_and_dropped_by_key(
    write_coco: WriteCoco, said: pytest.LogCaptureFixture, name: str, number: int
) -> None:
    boxes = [*ROWS, annotation(1, number, [2, 2, 9, 9])]
    folder = write_coco([(1, 20, 20), (2, 20, 20)], boxes, ((number, name), *CATEGORIES))
    kept = open_coco(folder)
    assert name in kept.class_names and len(rows(kept, 0)) == 4
    line = f"'{name}' (id {number}, 1 boxes) is trained like any other class"
    assert line in said.text and "DATASETS.DROP_BACKGROUND: True" in said.text
    dropped = open_coco(folder, class_map=ClassMap(drop_background=True))
    assert dropped.class_names == ["hole", "stain", "scratch"] and dropped.category_ids == [2, 5, 9]
    assert [each for each, _ in rows(dropped, 0)] == [HOLE, STAIN, SCRATCH]
    assert f"left out as background: '{name}' (id {number}, 1 boxes)" in said.text


def test_an_empty_class_of_id_0(write_coco: WriteCoco, said: pytest.LogCaptureFixture) -> None:
    folder = write_coco([(1, 20, 20), (2, 20, 20)], ROWS, ((0, "parts"), *CATEGORIES))
    assert open_coco(folder).class_names[0] == "parts" and "'parts' (id 0, 0 boxes) is trained" in said.text
    assert "parts" not in open_coco(folder, class_map=ClassMap(drop_background=True)).class_names
    # It is a class where the model or the user says so: a validation set may lack its boxes.
    for options in ({"class_names": ["parts", "hole", "stain", "scratch"]}, {"kept_classes": ["parts", "hole"]}):
        options |= {"other_classes": "drop"} if "kept_classes" in options else {}
        dataset = open_coco(folder, class_map=ClassMap(drop_background=True), **options)
        assert dataset.category_ids[0] == 0
    renamed = open_coco(folder, class_map=ClassMap({"parts": "wheel"}, drop_background=True))
    assert renamed.class_names[0] == "wheel"


def test_a_file_without_boxes_or_other_classes_tells_nothing(write_coco: WriteCoco, said: Any) -> None:
    drop = ClassMap(drop_background=True)
    without_boxes = write_coco([(1, 20, 20)], [], ((0, "parts"), (1, "hole")), name="a")
    alone = write_coco([(1, 20, 20)], [annotation(1, 0)], (BACKGROUND,), name="b")
    assert open_coco(without_boxes, class_map=drop).class_names == ["parts", "hole"]
    assert open_coco(alone, class_map=drop).class_names == ["background"]
    assert not said.text


def test_background_and_a_map_together(write_coco: WriteCoco) -> None:
    boxes = [*ROWS, annotation(1, 0, [2, 2, 9, 9])]
    folder = write_coco([(1, 20, 20), (2, 20, 20)], boxes, (BACKGROUND, *CATEGORIES))
    dataset = open_coco(folder, class_map=ClassMap({"stain": "", "hole": "scratch"}, "ignore", True))
    assert dataset.class_names == ["scratch"] and dataset.category_ids == [2]
    # Boxes of the background are no ignore regions, which would hide the whole image.
    assert rows(dataset, 0) == [(HOLE, "scratch"), (STAIN, None), (SCRATCH, "scratch")]
    assert dataset.merged_ids == {9: 2, 5: 0}
