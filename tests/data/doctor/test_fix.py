"""Cleaned copies: each change by hand, nothing else changed, and nothing left to change."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.doctor.fix import FileFacts, cleaned, readable
from engine.data.formats import coco
from engine.errors import InputError

FILES = FileFacts({"a.png": (40, 60), "b.png": (40, 60)}, {"c.png": "c.png: no such image file"})


def content(*boxes: Any, **more: Any) -> dict[str, Any]:
    """Images a, b and c (whose file is missing); annotations 1, 2, ... in image 1."""
    images = [{"id": k, "file_name": f"{name}.png", "height": 40, "width": 60} for k, name in enumerate("abc", 1)]
    rows = [{"id": k, "image_id": 1, "category_id": 5, "bbox": box} for k, box in enumerate(boxes, 1)]
    return {"images": images, "annotations": rows, "categories": [{"id": 5, "name": "hole"}], **more}


@pytest.mark.parametrize(
    ("box", "code", "result"),
    [
        ([5, 5, 0, 9], "BOX_NO_AREA", None),
        ([5, 5, -3, 9], "BOX_NO_AREA", None),
        ([60, 5, 9, 9], "BOX_OUTSIDE", None),
        ([5, -9, 9, 9], "BOX_OUTSIDE", None),
        ([1, 2, 3], "BOX_INVALID", None),
        (None, "BOX_INVALID", None),
        ([-4, 5, 10, 9], "BOX_REACHES_OUT", [0, 5, 6, 9]),
        ([50, 35, 20, 20], "BOX_REACHES_OUT", [50, 35, 10, 5]),
        ([1, 2, 3, 4], None, [1, 2, 3, 4]),
    ],
)
def test_boxes(box: Any, code: str | None, result: list[float] | None) -> None:
    data, changes = cleaned(content(box), FILES)
    assert [row["bbox"] for row in data["annotations"]] == ([result] if result else [])
    assert [each.code for each in changes if each.what == "annotation"] == ([code] if code else [])


def test_images_ids_repeats_and_areas() -> None:
    data = content([1, 2, 9, 9], [1, 2, 9, 9], [20, 2, 9, 9], [30, 2, 9, 9], [1, 2, 3, 4])
    rows = data["annotations"]
    rows[2] |= {"id": 1, "area": 1e6}
    rows[3]["category_id"] = 77
    rows[4]["image_id"] = 3
    data["images"][1] |= {"height": 60, "width": 40}
    before = copy.deepcopy(data)
    fixed, changes = cleaned(data, FILES)
    assert data == before
    found = sorted((each.code, each.what, each.id) for each in changes)
    assert found == [
        ("AREA_WRONG", "annotation", 1),
        ("BOX_REPEATED", "annotation", 2),
        ("FILE_UNREADABLE", "annotation", 5),
        ("FILE_UNREADABLE", "image", 3),
        ("ID_REPEATED", "annotation", 1),
        ("ID_UNKNOWN", "annotation", 4),
        ("SIZE_WRONG", "image", 2),
    ]
    assert [(row["id"], row["bbox"]) for row in fixed["annotations"]] == [(1, [1, 2, 9, 9]), (2, [20, 2, 9, 9])]
    assert [(row["height"], row["width"]) for row in fixed["images"]] == [(40, 60), (40, 60)]


def test_boxes_in_another_form() -> None:
    corners = FileFacts(FILES.sizes, {}, "corners")
    assert cleaned(content([10, 10, 30, 25]), corners)[0]["annotations"][0]["bbox"] == [10, 10, 20, 15]
    relative = FileFacts(FILES.sizes, {}, "relative")
    assert cleaned(content([0.5, 0.25, 0.5, 0.5]), relative)[0]["annotations"][0]["bbox"] == [30, 10, 30, 20]


def test_boxes_of_images_made_smaller_are_scaled() -> None:
    data = content([30, 20, 30, 20], [4, 4, 8, 8])
    halved = FileFacts({"a.png": (20, 30), "b.png": (20, 30)}, {"c.png": "missing"})
    data["annotations"][1]["image_id"] = 2
    data["annotations"].append({"id": 3, "image_id": 2, "category_id": 5, "bbox": [40, 20, 10, 10]})
    fixed, changes = cleaned(data, halved)
    assert [row["bbox"] for row in fixed["annotations"]] == [[15, 10, 15, 10], [2, 2, 4, 4], [20, 10, 5, 5]]
    assert {each.code for each in changes} == {"SIZE_WRONG", "FILE_UNREADABLE"}


@pytest.mark.parametrize(
    "changes",
    [
        {"images": 3},
        {"categories": []},
        {"categories": [{"id": 6, "name": "hole"}]},
        {"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]},
    ],
    ids=["outline", "no categories", "shifted", "image id twice"],
)
def test_what_rules_cannot_decide_is_left_to_the_user(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="by hand"):
        cleaned(content([1, 2, 3, 4], **changes), FILES)


odd = st.sampled_from([None, "x", "7", True, [], -3, 0.5, float("nan"), 1e308, {}])
annotations = st.lists(
    st.fixed_dictionaries(
        {"image_id": st.integers(0, 4), "category_id": st.sampled_from([5, "5", 7])},
        optional={
            "id": st.integers(0, 4) | odd,
            "bbox": st.lists(st.integers(-20, 70), min_size=4, max_size=4) | st.lists(odd, max_size=5) | odd,
            "area": odd,
            "iscrowd": st.integers(0, 1) | odd,
        },
    ),
    max_size=6,
)


@given(annotations)
def test_any_annotations_become_readable_and_stay_so(rows: list[dict[str, Any]]) -> None:
    data = content() | {"annotations": rows}
    fixed, _ = cleaned(data, FILES)
    assert list(coco.faults(fixed, "x")) == [] == list(coco.faults(readable(data), "x"))
    again, changes = cleaned(fixed, FILES)
    assert again == fixed and not changes


def test_what_json_does_not_have_is_left_out() -> None:
    data = content([1, 2, 3, 4], [0, 0, 1e308, 1e308])
    data["annotations"][0] |= {"score": float("inf"), "note": "kept"}
    data["images"][0] |= {"gain": [float("nan")], "height": None, "width": None}
    data["annotations"][1] |= {"area": -1}
    fixed, changes = cleaned(data, FileFacts({}, {}))
    json.dumps(fixed, allow_nan=False)
    assert "note" in fixed["annotations"][0] and "score" not in fixed["annotations"][0]
    assert sorted(each.text.split(" ")[0] for each in changes if each.code == "VALUE_INVALID") == ["gain", "score"]
