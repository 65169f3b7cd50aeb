from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import InputError
from engine.evaluation.results import read_results, read_skipped_images, to_coco_results, without_images
from engine.files import write_json
from engine.structures import Detections
from tests.evaluation.conftest import annotation_table

TRUTH = annotation_table({"images": [{"id": 1}, {"id": "b"}], "categories": [{"id": 3}, {"id": 9}]})
GOOD = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 1.5, 2], "score": 0.5}


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        boxes=torch.tensor(boxes).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.int64),
        size=(20, 20),
    )


def test_to_coco_results_maps_labels_to_sparse_unsorted_ids() -> None:
    found = {
        "b": detections([[1, 2, 4, 6], [0, 0, 1, 1]], [0.5, 0.25], [1, 0]),
        1: detections([], [], []),
    }
    results = to_coco_results(found, [9, 3])
    assert results == [
        {"image_id": "b", "category_id": 3, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5},
        {"image_id": "b", "category_id": 9, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.25},
    ]
    assert json.loads(json.dumps(results)) == results


def test_to_coco_results_names_the_image_of_a_score_that_is_not_finite() -> None:
    with pytest.raises(InputError, match="image 7"):
        to_coco_results({7: detections([[0, 0, 1, 1]], [float("nan")], [0])}, [1])


def test_write_then_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bbox.json"
    write_json(path, [GOOD])
    assert read_results(path, TRUTH) == [GOOD]
    write_json(path, [])
    assert read_results(path, TRUTH) == []
    assert [p.name for p in path.parent.iterdir()] == ["bbox.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "a number of more than 4300 digits"),
        ('{"images": []}', "must hold a list"),
    ],
)
def test_a_file_of_the_wrong_kind(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bbox.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_results(path, TRUTH)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "none.json", TRUTH)
    (tmp_path / "bbox.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_results(tmp_path / "bbox.json", TRUTH)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 2}, "image_id 2 is not in"),
        ({"image_id": "01b"}, "image_id '01b' is not in"),
        ({"image_id": True}, "image_id True is not in"),
        ({"category_id": "hole "}, "category_id 'hole ' is not in the annotations, which have 3, 9"),
        ({"image_id": None}, "image_id None"),
        ({"image_id": [1]}, "image_id"),
        ({"category_id": 4}, "category_id 4 is not in the annotations, which have 3, 9"),
        ({"bbox": [1, 2, 3]}, "4 finite numbers"),
        ({"bbox": [1, 2, 3, "4px"]}, "4 finite numbers"),
        ({"score": "1e400"}, "score must be a finite number, not '1e400'"),
        ({"bbox": [1, 2, 3, float("inf")]}, "4 finite numbers"),
        ({"bbox": [5, 5, -1, 3]}, "negative"),
        ({"score": float("nan")}, "score must be a finite number, not nan"),
        ({"score": 10**400}, "score must be a finite number"),
        ({"score": "high"}, "score"),
        ({"score": True}, "score"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "bbox.json"
    path.write_text(json.dumps([GOOD, GOOD | change]))
    with pytest.raises(InputError, match="entry 1: .*" + message):
        read_results(path, TRUTH)


def test_an_entry_that_is_no_object_or_lacks_a_key(tmp_path: Path) -> None:
    path = tmp_path / "bbox.json"
    path.write_text("[3]")
    with pytest.raises(InputError, match="entry 0: must be an object"):
        read_results(path, TRUTH)
    path.write_text('[{"image_id": 1, "bbox": [0, 0, 1, 1]}]')
    with pytest.raises(InputError, match="entry 0: lacks category_id, score"):
        read_results(path, TRUTH)


def test_plain_numbers_as_text_are_read_and_come_as_the_annotations_have_them(tmp_path: Path) -> None:
    path = tmp_path / "bbox.json"
    path.write_text('[{"image_id": " 1", "category_id": "3.0", "bbox": ["0", 0, "1.5", 2], "score": ".5"}]')
    assert read_results(path, TRUTH) == [GOOD]


@pytest.mark.parametrize("ids", [["hole", "7"], [2**64, 2**64 + 1], ["3", "0x"]])
def test_category_ids_of_any_kind_make_the_round_trip(tmp_path: Path, ids: list) -> None:
    table = annotation_table({"images": [{"id": "a"}, {"id": "1"}], "categories": [{"id": id_} for id_ in ids]})
    found = {"a": detections([[1, 2, 4, 6]], [0.5], [1]), "1": detections([[1, 2, 4, 6]], [0.5], [0])}
    results = to_coco_results(found, table.category_ids)
    write_json(tmp_path / "bbox.json", results)
    assert read_results(tmp_path / "bbox.json", table) == results
    assert [row["category_id"] for row in results] == [sorted(ids)[1], sorted(ids)[0]]


def test_skipped_images_are_known_and_have_no_detections(tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in (3, 4, 5)]
    table = annotation_table({"images": images, "annotations": [], "categories": [{"id": 1, "name": "hole"}]})
    path, results = tmp_path / "metrics.json", [{"image_id": 4, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1.0}]
    assert read_skipped_images(path, table, results) == []
    for content in ("[]", "{", '{"skipped_images": 5}', '{"skipped_images": [[1], {}, null]}', "[" * 9999):
        path.write_text(content)
        assert read_skipped_images(path, table, results) == []
    path.write_text('{"skipped_images": [3, "a", [5], true, 4, 9, 3]}')
    assert read_skipped_images(path, table, results) == [3]


def test_without_images_keeps_what_the_others_have() -> None:
    boxes = [(7, 9, 4), (5, 3, 2), (8, 3, 6), (7, 3, 3)]
    annotations = [
        {"image_id": i, "category_id": c, "bbox": [0, 0, s, s], "area": s, "iscrowd": s > 5} for i, c, s in boxes
    ]
    images, categories = [{"id": 7}, {"id": 5}, {"id": 8}], [{"id": 3}, {"id": 9}]
    world = {"images": images, "categories": categories, "annotations": annotations}
    table = annotation_table(world)
    kept = without_images(table, [5, 77])
    fewer = {"images": [images[0], images[2]], "annotations": [a for a in annotations if a["image_id"] != 5]}
    assert repr(kept) == repr(annotation_table(world | fewer))
    assert repr(table) == repr(annotation_table(world))
    nothing = without_images(table, [7, 5, 8])
    assert (nothing.image_ids, nothing.boxes_xywh.shape) == ([], (0, 4)) and nothing.category_ids == [3, 9]
