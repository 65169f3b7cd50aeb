"""COCO files as labelling tools write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data.annotations import AnnotationTable
from engine.data.formats import coco
from engine.errors import InputError
from tests.data.conftest import annotation, open_coco

IMAGE = {"id": 1, "file_name": "a.png", "height": 20, "width": 30}
CATEGORIES = [{"id": 3, "name": "scratch"}, {"id": 7, "name": "hole"}]


def table(**content: Any) -> AnnotationTable:
    """The table of a file with one image and two classes, where `content` does not say otherwise."""
    return coco.to_table({"images": [IMAGE], "categories": CATEGORIES, "annotations": []} | content, "x.json")


# ---------------------------------------------------------------- values as text


def test_plain_numbers_as_text_are_read(said: pytest.LogCaptureFixture) -> None:
    as_text = table(
        images=[{"id": 1, "file_name": "a.png", "height": "20", "width": " 30.0"}],
        annotations=[
            {
                "id": "5",
                "image_id": "1",
                "category_id": "7",
                "bbox": ["1", "2.5", 3, " 4 "],
                "area": "9.5",
                "iscrowd": "0",
            },
            {"id": 6.0, "image_id": 1.0, "category_id": 3.0, "bbox": [1, 2, 3, 4], "area": None, "iscrowd": "1"},
            {"id": 7, "image_id": " 1", "category_id": "03", "bbox": [1, 2, 3, 4], "iscrowd": False},
        ],
    )
    assert as_text.sizes.tolist() == [[20, 30]] and list(as_text.image_ids) == [1]
    assert as_text.category_rows.tolist() == [1, 0, 0] and as_text.image_rows.tolist() == [0, 0, 0]
    assert as_text.boxes_xywh.tolist() == [[1, 2.5, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert as_text.areas.tolist() == [9.5, 12, 12] and as_text.crowd.tolist() == [False, True, False]
    assert not said.messages


@pytest.mark.parametrize(("height", "width"), [(None, None), (0, 0), ("", ""), ("0", "0"), (None, 30), (20, "")])
def test_sizes_that_are_not_known(height: Any, width: Any) -> None:
    assert table(images=[IMAGE | {"height": height, "width": width}]).sizes.tolist() == [[0, 0]]


def test_via_writes_ids_as_text() -> None:
    via = table(
        images=[{"id": "0", "file_name": "a.png"}, {"id": "1", "file_name": "b.png"}],
        categories=[{"id": "10", "name": "hole"}, {"id": "9", "name": "stain"}],
        annotations=[annotation("1", 9, segmentation=[1, 2, 4, 2, 4, 6]), annotation(0, "10")],
    )
    assert (list(via.image_ids), via.category_ids, via.category_names) == (["0", "1"], ["9", "10"], ["stain", "hole"])
    assert via.image_rows.tolist() == [1, 0] and via.category_rows.tolist() == [0, 1]


def test_ids_of_any_kind() -> None:
    uuid = 2**127 + 1
    ids = table(
        images=[{"id": uuid, "file_name": "a.png"}, {"id": 5, "file_name": "b.png"}],
        categories=[{"id": "hole", "name": "hole"}, {"id": "b1f4", "name": "stain"}],
        annotations=[annotation(str(uuid), "hole"), annotation(5, "b1f4")],
    )
    assert list(ids.image_ids) == [uuid, 5] and ids.image_ids[0] == uuid
    assert ids.category_ids == ["b1f4", "hole"] and ids.category_rows.tolist() == [1, 0]
    large = table(categories=[{"id": 2**64, "name": "hole"}], annotations=[annotation(1, 2**64)])
    assert large.category_ids == [2**64]


def test_a_mixture_of_ids_becomes_text() -> None:
    mixed = table(
        images=[IMAGE, {"id": "b", "file_name": "b.png"}],
        categories=[{"id": 1, "name": "hole"}, {"id": "s", "name": "stain"}],
        annotations=[annotation(1, 1), annotation("1", "1"), annotation("b", "s")],
    )
    assert list(mixed.image_ids) == ["1", "b"] and mixed.category_ids == ["1", "s"]
    assert mixed.image_rows.tolist() == mixed.category_rows.tolist() == [0, 0, 1]


def test_a_number_that_may_mean_two_ids_is_refused() -> None:
    images = [{"id": "1", "file_name": "a.png"}, {"id": "01", "file_name": "b.png"}]
    assert table(images=images, annotations=[annotation("01")]).image_rows.tolist() == [1]
    with pytest.raises(InputError, match="image_id 1 is not in `images`"):
        table(images=images, annotations=[annotation(1)])


# ---------------------------------------------------------------- categories


def test_names_may_be_numbers() -> None:
    rows = [{"id": k, "name": name} for k, name in enumerate((7, 7.5, 8.0))]
    assert table(categories=rows).category_names == ["7", "7.5", "8"]


def test_names_are_read_in_their_normal_form(said: pytest.LogCaptureFixture) -> None:
    names = ["hole ", "de\u0301faut", "stain", "\u00a0a b"]
    read = table(categories=[{"id": k, "name": name} for k, name in enumerate(names)])
    assert read.category_names == ["hole", "d\u00e9faut", "stain", "a b"]
    (line,) = said.messages
    assert line.startswith("x.json: ") and "'hole ' as 'hole', 'de\\u0301faut' as 'd\u00e9faut'" in line


def test_categories_of_one_name_are_one_class(said: pytest.LogCaptureFixture) -> None:
    names = {9: "d\u00e9faut", 4: "de\u0301faut ", 6: "hole", 5: "hole"}
    rows = [{"id": id_, "name": name} for id_, name in names.items()]
    read = table(categories=[*rows, rows[2]], annotations=[annotation(1, id_) for id_ in names])
    assert (read.category_ids, read.category_names) == ([4, 5], ["d\u00e9faut", "hole"])
    assert read.category_rows.tolist() == [0, 0, 1, 1]
    assert said.messages[0].endswith("read as one class: 'd\u00e9faut' (ids 4, 9), 'hole' (ids 5, 6)")


@pytest.mark.parametrize("zero", [0, "0"])
@pytest.mark.parametrize("own_name", ["fabric", "hole"])
def test_the_placeholder_of_roboflow_is_dropped(said: pytest.LogCaptureFixture, zero: Any, own_name: str) -> None:
    rows = [{"id": zero, "name": own_name, "supercategory": "none"}]
    rows += [{"id": k, "name": name, "supercategory": own_name} for k, name in ((1, "hole"), (2, "stain"))]
    content = {"categories": rows, "annotations": [annotation(1, 2)]}
    read = table(**content)
    assert read.category_names == ["hole", "stain"] == coco.class_names(content, "x.json")
    assert f"category {zero!r} '{own_name}' is left out" in said.text


def test_category_0_is_kept_where_it_is_a_class() -> None:
    child = {"id": 1, "name": "hole", "supercategory": "fabric"}
    with_boxes = table(categories=[{"id": 0, "name": "fabric"}, child], annotations=[annotation(1, "0")])
    assert with_boxes.category_names == ["fabric", "hole"]
    rows = [{"id": 0, "name": "fabric", "supercategory": "fabric"}, child | {"supercategory": "other"}]
    assert table(categories=rows).category_names == ["fabric", "hole"]
    rows = [{"id": 2, "name": "fabric"}, child]
    assert table(categories=rows).category_names == ["hole", "fabric"]


# ---------------------------------------------------------------- annotations


def test_ignored_boxes_are_ignore_regions(write_coco: Callable[..., Path]) -> None:
    rows = [annotation(ignore=1), annotation(ignore="1", iscrowd=0), annotation(ignore=0, iscrowd=True), annotation()]
    dataset = open_coco(write_coco([(1, 20, 20)], rows))
    assert dataset.annotations.crowd.tolist() == [True, True, True, False]
    assert dataset.read(0)[1].ignore.tolist() == [True, True, True, False] and dataset.num_boxes(0) == 1


def test_boxes_come_from_the_segmentation_where_there_are_none(said: pytest.LogCaptureFixture) -> None:
    polygon, mask = [[3, 4, 8, 4, 8, 9]], {"size": [20, 30], "counts": [45, 5, 15, 5]}
    rows = [{"image_id": 1, "category_id": 3, "segmentation": each} for each in (polygon, mask)]
    rows += [rows[0] | {"bbox": None}, rows[0] | {"bbox": []}, rows[0] | {"bbox": [1, 2, 3, 4]}]
    rows += [annotation(1, segmentation=[])]
    read = table(annotations=rows)
    assert read.boxes_xywh.tolist() == [[3, 4, 5, 5], [2, 5, 2, 5], *[[3, 4, 5, 5]] * 2, *[[1, 2, 3, 4]] * 2]
    assert read.areas.tolist() == [25, 10, 25, 25, 12, 12]
    assert "box around their segmentation: 4 of 6" in said.text
    with pytest.raises(InputError, match=r"annotation number 1 .*: bbox .*not \[1, 2\]"):
        table(annotations=[rows[0] | {"bbox": [1, 2]}])  # a box is there, and it is wrong


def test_fields_of_the_tools_do_no_harm(said: pytest.LogCaptureFixture) -> None:
    more = {"attributes": {"occluded": False, "rotation": 0.0}, "score": 0.9, "segmentation": [], "category_name": "x"}
    more |= {"isbbox": True, "color": "#fff", "keypoints": [], "num_keypoints": 0, "track_id": 3, "metadata": {}}
    image = {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": 0, "path": "/d/a.png", "events": []}
    file = {"info": {}, "licenses": [], "type": "instances", "videos": []}
    read = table(images=[IMAGE | image], annotations=[annotation(1, **more)], **file)
    assert len(read.boxes_xywh) == 1 and not said.messages


# ---------------------------------------------------------------- images listed several times


def test_an_image_that_is_listed_once_per_box(said: pytest.LogCaptureFixture) -> None:
    read = table(
        images=[IMAGE, IMAGE, IMAGE | {"id": "1"}, IMAGE | {"id": 2, "file_name": "b.png"}],
        annotations=[annotation(1), annotation(1), annotation(2)],
    )
    assert list(read.image_ids) == ["1", "2"] and read.image_rows.tolist() == [0, 0, 1]
    assert "read as one image with it: 2, such as 'a.png'" in said.text


def test_an_image_that_has_an_id_for_each_box(said: pytest.LogCaptureFixture) -> None:
    names = {5: "a.png", 6: "b.png", 7: "a.png", 8: "c.png", 9: "a.png"}
    images = [{"id": id_, "file_name": name} for id_, name in names.items()]
    images[2] |= {"height": 20, "width": 30}
    shared = [9, 9, 2, 2]
    rows = [annotation(5, bbox=[1, 1, 2, 2]), annotation(6), annotation(7, bbox=[5, 5, 2, 2], iscrowd=1)]
    rows += [annotation(5, bbox=shared), annotation(9, bbox=shared), annotation(9, 7, bbox=shared)]
    read = table(images=images, annotations=rows)
    assert list(read.image_ids) == [5, 6, 8] and list(read.file_names) == ["a.png", "b.png", "c.png"]
    assert read.image_rows.tolist() == [0, 1, 0, 0, 0] and read.sizes.tolist() == [[20, 30], [0, 0], [0, 0]]
    assert read.boxes_xywh[[0, 2, 3, 4]].tolist() == [[1, 1, 2, 2], [5, 5, 2, 2], shared, shared]
    assert read.category_rows.tolist() == [0, 0, 0, 0, 1] and read.crowd.tolist() == [False, False, True, False, False]
    assert said.messages[0].endswith("under the first id: 1, such as 'a.png'")


def test_deliberate_repeats_of_an_image_stay(said: pytest.LogCaptureFixture) -> None:
    images = [{"id": k, "file_name": "a.png"} for k in (1, 2, 3)]
    boxes = [[1, 1, 2, 2], [5, 5, 2, 2], [5, 5, 2, 2]]
    rows = [annotation(k, bbox=box) for k in (1, 2, 3) for box in (boxes if k < 3 else boxes[::-1])]
    read = table(images=images, annotations=rows)
    assert list(read.image_ids) == [1, 2, 3] and len(read.boxes_xywh) == 9
    assert np.array_equal(table(images=images).sizes, np.zeros((3, 2))) and not said.messages


# ---------------------------------------------------------------- misspelt keys


@pytest.mark.parametrize("slip", ["annotation", "Annotations", "anotations", "annotatoins", "annotations_"])
def test_a_misspelt_section_is_named(slip: str) -> None:
    data = {"images": [IMAGE], "categories": CATEGORIES, slip: [annotation()]}
    with pytest.raises(InputError, match=f"x.json: `annotations` is missing; did you mean '{slip}'"):
        coco.to_table(data, "x.json")
    with pytest.raises(InputError, match="`categories` is missing; did you mean 'catagories'"):
        coco.to_table({"images": [IMAGE], "catagories": CATEGORIES}, "x.json")


def test_a_file_without_annotations_is_a_test_set() -> None:
    data = {"images": [IMAGE], "categories": CATEGORIES, "info": {}, "licenses": [], "videos": [], "type": "x"}
    assert coco.to_table(data, "x.json").boxes_xywh.shape == (0, 4)


@pytest.mark.parametrize(
    ("section", "key", "slip"),
    [
        ("images", "file_name", "file-name"),
        ("images", "file_name", "fileName"),
        ("images", "file_name", "fname"),
        ("images", "id", "ID"),
        ("categories", "name", "Name"),
        ("annotations", "bbox", "bbx"),
        ("annotations", "bbox", "box"),
        ("annotations", "image_id", "imageid"),
        ("annotations", "category_id", "catagory_id"),
    ],
)
def test_a_misspelt_key_is_named(section: str, key: str, slip: str) -> None:
    data = {"images": [IMAGE], "categories": CATEGORIES, "annotations": [annotation(), annotation()]}
    data = json.loads(json.dumps(data))
    row = data[section][-1]
    row[slip] = row.pop(key)
    found = list(coco.faults(data, "x.json"))
    if slip == "fname":  # too far from it to be sure
        assert found == ["x.json: image 1 has no `file_name`"]
    else:
        assert found == [
            f"x.json: `{section}` has '{slip}' but no `{key}` in 1 of {len(data[section])} entries; "
            f"rename it to `{key}`"
        ]


def test_a_misspelt_optional_key_is_said(said: pytest.LogCaptureFixture) -> None:
    table(
        annotations=[annotation(is_crowd=1), annotation(isCrowd=0), annotation(iscrowd=0)],
        images=[{"id": 1, "file_name": "a", "heigth": 5, "width": 5}],
    )
    assert [line.removeprefix("x.json: ") for line in said.messages] == [
        "`images` has 'heigth' in 1 of 1 entries, which is not read; did you mean `height`?",
        "`annotations` has 'isCrowd' in 1 of 3 entries, which is not read; did you mean `iscrowd`?",
        "`annotations` has 'is_crowd' in 1 of 3 entries, which is not read; did you mean `iscrowd`?",
    ]
