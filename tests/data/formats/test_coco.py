"""Faults of COCO files: each is one line with the file and the id; the loader raises the first, `faults` lists all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.data.annotations import FORMATS
from engine.data.dataset import CocoDataset
from engine.data.formats import coco
from engine.errors import InputError
from tests.data.conftest import annotation, open_coco

WriteCoco = Callable[..., Path]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, ["`images` must be a list"]),
        ({"images": [{"file_name": "a.png"}]}, ["image number 1", "id"]),
        ({"images": [{"id": 1.5, "file_name": "a.png"}]}, ["image number 1", "1.5", "integer or text"]),
        ({"images": [{"id": True, "file_name": "a.png"}]}, ["image number 1", "True"]),
        ({"images": [{"id": [1], "file_name": "a.png"}]}, ["image number 1", "[1]"]),
        ({"images": [{"id": 1}]}, ["image 1", "file_name"]),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, ["image id 1 occurs twice"]),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}]}, ["image id '1' occurs twice"]),
        ({"images": [{"id": "\ud83d", "file_name": "a"}]}, ["image number 1 has no usable `id`, but '\\ud83d'"]),
        ({"images": [{"id": 1, "file_name": 12}]}, ["image 1: `file_name` must be text, not 12"]),
        ({"images": [{"id": "x ", "file_name": "a\0"}]}, ["image 'x ': `file_name` 'a\\x00' has a NUL character"]),
        ({"images": [{"id": 1, "file_name": "\ud83d.png"}]}, ["image 1: `file_name` '\\ud83d.png' is not valid Uni"]),
        ({"categories": [{"id": 3, "name": "\ud83d"}]}, ["category 3: `name` '\\ud83d' is not valid Unicode"]),
        ({"images": [{"id": 1, "file_name": "a", "height": -2, "width": 5}]}, ["image 1", "-2"]),
        ({"images": [{"id": 1, "file_name": "a", "height": "x", "width": 5}]}, ["image 1", "'x'"]),
        ({"images": [{"id": 1, "file_name": "a", "height": "5px"}]}, ["image 1", "'5px'"]),
        ({"images": [{"id": 1, "file_name": "a", "height": 5.5, "width": 5}]}, ["image 1", "5 x 5.5"]),
        ({"images": [{"id": 1, "file_name": "a", "height": True, "width": 5}]}, ["image 1", "5 x True"]),
        ({"images": [{"id": 1, "file_name": "a", "height": "9" * 5000, "width": 5}]}, ["image 1", "999..."]),
        ({"categories": []}, ["`categories` is empty"]),
        ({"categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, ["category id 3 occurs twice"]),
        ({"categories": [{"id": 3, "name": " "}]}, ["category 3 has no usable `name`, but ' '"]),
        ({"categories": [{"id": 3, "name": True}]}, ["category 3 has no usable `name`, but True"]),
        ({"categories": [{"id": 3}]}, ["category 3", "name"]),
        ({"categories": [{"id": None, "name": "a"}]}, ["category number 1: `id` must be an integer or text, not None"]),
        ({"annotations": [annotation(99, id=5)]}, ["annotation 5", "image_id 99"]),
        ({"annotations": [annotation(99)]}, ["annotation number 1", "image_id 99"]),
        ({"annotations": [annotation(1, 99, id=5)]}, ["annotation 5", "category_id 99"]),
        ({"annotations": [annotation(1, None, id=5)]}, ["annotation 5", "category_id None"]),
        ({"annotations": [annotation(id=5)] * 2}, ["annotation 5", "twice"]),
        ({"annotations": [annotation(bbox=[1, 2, 3], id=5)]}, ["annotation 5", "image 1", "bbox"]),
        ({"annotations": [annotation(bbox=[1, 2, 3, float("nan")], id=5)]}, ["bbox", "nan"]),
        ({"annotations": [annotation(bbox=[1, 2, 3, float("inf")], id=5)]}, ["bbox", "inf"]),
        ({"annotations": [annotation(bbox=[1, 2, 3, 10**400], id=5)]}, ["bbox", "1000"]),
        ({"annotations": [annotation(bbox=[1, 2, 3, "1e400"], id=5)]}, ["bbox", "'1e400'"]),
        ({"annotations": [annotation(bbox=[1, 2, 3, "nan"], id=5)]}, ["bbox", "'nan'"]),
        ({"annotations": [annotation(bbox=[1, 2, 3, "1_0"], id=5)]}, ["bbox", "'1_0'"]),
        ({"annotations": [annotation(bbox=[1, 2, 3, "０"], id=5)]}, ["bbox", "'０'"]),
        ({"annotations": [annotation(bbox=[], id=5)]}, ["bbox", "[] (and there is no usable segmentation)"]),
        ({"annotations": [annotation(area="big", id=5)]}, ["annotation 5: area (image 1)", "'big'"]),
        ({"annotations": [annotation(area=float("nan"), id=5)]}, ["annotation 5: area (image 1)", "nan"]),
        ({"annotations": [annotation(iscrowd="yes", id=5)]}, ["annotation 5: iscrowd (image 1)", "0 or 1", "'yes'"]),
        ({"annotations": [annotation(iscrowd="", id="5 ")]}, ["annotation '5 ': iscrowd"]),
        ({"annotations": [annotation(iscrowd=[], id=5)]}, ["annotation 5: iscrowd (image 1)", "[]"]),
        ({"annotations": [annotation(ignore=2, id=5)]}, ["annotation 5: ignore (image 1) must be 0 or 1, not 2"]),
        ({"annotations": [annotation(id=[5])]}, ["annotation [5]: `id` must be an integer or text"]),
        ({"annotations": [annotation(True, id=5)]}, ["annotation 5: image_id True is not in `images`"]),
        ({"annotations": [annotation(bbox=[1, 2, 3, True], id=5)]}, ["bbox", "True"]),
        ({"annotations": [annotation(bbox="a\nb" * 50, id=5)]}, ["bbox"]),
        ({"annotations": [{"id": 5}]}, ["annotation 5", "image_id None"]),
        ({"annotations": [5]}, ["`annotations` must be a list of objects"]),
    ],
)
def test_faults_are_one_line_with_file_and_id(write_coco: WriteCoco, changes: dict, words: list[str]) -> None:
    folder = write_coco([(1, 20, 20)], [], changes=changes)
    with pytest.raises(InputError) as caught:
        open_coco(folder)
    message = str(caught.value)
    assert message.startswith(str(folder / "ann.json")) and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ":1:"),
        (b'{\n"images": [],\n"categories": [}', ":3:"),
        (b"[]", "top level"),
        (b'{"categories": []}', "`images` is missing"),
        (b'{"images": []}', "`categories` is missing"),
        (b'{"images": "\xff\xfe"}', "UTF-8"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "ann.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        CocoDataset("x", tmp_path, tmp_path / "ann.json")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_loader_raises_the_first_of_all_faults(write_coco: WriteCoco) -> None:
    """Five different faults, and a sixth kind twice in one annotation."""
    changes = {
        "categories": [{"id": 3, "name": "a"}, {"id": 4}],
        "images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "b", "height": -2, "width": 5}],
        "annotations": [
            annotation(1, id=1),
            annotation(99, id=5),
            annotation(2, 4, [1, 2, 3], id=6),  # neither its image nor its category is told again
            annotation(1, id=5),
            annotation(1, 77, "x"),
        ],
    }
    path = write_coco([], [], changes=changes) / "ann.json"
    found = list(coco.file_faults(path))
    expected = [
        ["category 4", "no usable `name`"],
        ["image 2", "5 x -2"],
        ["annotation 5", "image_id 99"],
        ["annotation 6", "image 2", "bbox", "[1, 2, 3]"],
        ["annotation 5", "twice"],
        ["annotation number 5", "category_id 77"],
        ["annotation number 5", "bbox", "'x'"],
    ]
    assert len(found) == len(expected)
    for fault, words in zip(found, expected, strict=True):
        assert fault.startswith(f"{path}: ") and "\n" not in fault
        assert all(word in fault for word in words), fault
    with pytest.raises(InputError) as caught:
        open_coco(path.parent)
    assert str(caught.value) == found[0]


def test_faults_of_the_outline_are_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "ann.json"
    path.write_text('{"images": {}, "annotations": [5]}')
    assert [fault.removeprefix(f"{path}: ") for fault in coco.file_faults(path)] == [
        "`images` must be a list of objects",
        "not a COCO file: `categories` is missing",
        "`annotations` must be a list of objects",
    ]
    path.write_text("{")
    assert [f"{path}:1:" in fault for fault in coco.file_faults(path)] == [True]


def test_a_file_without_faults(write_coco: WriteCoco) -> None:
    images, boxes = [("b", 20, 30), ("a", 10, 10)], [[1, 2, 3.5, 4], [0.1, 0, 2, 5]]
    rows = [annotation("a", 7, boxes[0], iscrowd=1), annotation("b", 3, boxes[1], area=3, id=0)]
    path = write_coco(images, rows) / "ann.json"
    assert list(coco.file_faults(path)) == []
    table = FORMATS.get("coco")(path)
    assert list(table.image_ids) == ["b", "a"] and list(table.file_names) == ["0.png", "1.png"]
    assert (table.category_ids, table.category_names) == ([3, 7], ["scratch", "hole"])
    assert table.sizes.tolist() == [[20, 30], [10, 10]] and table.sizes.dtype == np.int32
    assert table.image_rows.tolist() == [1, 0] and table.category_rows.tolist() == [1, 0]
    assert table.boxes_xywh.tolist() == boxes and table.areas.tolist() == [14, 3]
    assert table.crowd.tolist() == [True, False]


def test_class_names_look_at_categories_only(tmp_path: Path) -> None:
    data = {"images": [{}], "categories": [{"id": 9, "name": "b"}, {"id": 2, "name": "a"}]}
    assert coco.class_names(data, "x.json") == ["a", "b"]
    with pytest.raises(InputError, match="x.json: category 9 has no usable `name`"):
        coco.class_names({"categories": [{"id": 9}]}, "x.json")
