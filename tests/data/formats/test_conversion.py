"""From one format to another and back: the same to the last bit, and what a format cannot hold is said."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.annotations import AnnotationTable
from engine.data.formats import WRITERS, coco
from engine.data.formats.class_list import ClassList
from engine.data.formats.conversion import coco_of, convert, differences, of_names, with_classes
from engine.data.formats.corners import from_relative, to_corners, to_relative, to_xywh
from engine.data.formats.recognise import read_annotations
from engine.data.formats.values import exact
from engine.errors import InputError
from tests.data.formats.test_readers import rows_of, write

NO_CROWD = ("yolo", "txt", "competition")
numbers = st.one_of(
    st.integers(-50, 900).map(float),
    st.floats(-1e5, 1e5, allow_nan=False).map(lambda x: round(x, 2)),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300),
)
_characters = st.characters(exclude_categories=("Cc", "Cs", "Cn", "Co"), exclude_characters="/\\")
words = st.text(_characters, min_size=1, max_size=12)


@cache
def png() -> bytes:
    return cv2.imencode(".png", np.zeros((48, 60, 3), np.uint8))[1].tobytes()


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().lower()


@st.composite
def tables(draw: st.DrawFn, is_positive: bool = False) -> AnnotationTable:
    """A few images with names in any script, blanks in them, boxes of no area, outside, or of absurd sizes."""
    stems = draw(
        st.lists(words.filter(lambda w: _key(w) and not w.startswith(".")), min_size=1, max_size=4, unique_by=_key)
    )
    names = [f"{draw(st.sampled_from(['', 'sub/', 'x y/']))}{stem}.png" for stem in stems]
    classes = draw(st.lists(words.map(_key).filter(bool), min_size=1, max_size=3, unique=True))
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, len(names) - 1),
                st.integers(0, len(classes) - 1),
                st.tuples(numbers, numbers, numbers, numbers),
                st.booleans(),
            ),
            max_size=6,
        )
    )
    annotations = [
        {
            "image_id": image + 1,
            "category_id": category + 1,
            "bbox": [x, y, abs(w) if is_positive else w, abs(h) if is_positive else h],
            "iscrowd": int(crowd),
        }
        for image, category, (x, y, w, h), crowd in rows
    ]
    return coco.to_table(
        {
            "images": [
                {"id": k, "file_name": name, "width": 60, "height": 48} for k, name in enumerate(sorted(names), 1)
            ],
            "categories": [{"id": k, "name": name} for k, name in enumerate(sorted(classes), 1)],
            "annotations": annotations,
        },
        "table",
    )


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo", "txt", "csv", "labelme", "competition"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_round_trips(kind: str, data: st.DataObject) -> None:
    table = data.draw(tables(is_positive=kind == "labelme"))
    with TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        for name in table.file_names:
            path = images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png())
        transfer = data.draw(st.sampled_from(["", "copy", "link"]))
        done = convert(table, Path(folder) / "out", kind, images, transfer)
        after = read_annotations(done.ann_file, done.img_dir, kind)
    expected = [row for row in sorted(rows_of(table), key=lambda row: row[0]) if kind not in NO_CROWD or not row[3]]
    assert sorted(rows_of(after), key=lambda row: row[0]) == expected
    with_boxes = {row[0] for row in expected}
    images_left = set(after.file_names)
    assert images_left == (with_boxes if kind == "competition" else set(table.file_names))
    said = " ".join(done.differences)
    num_crowd = int(table.crowd.sum())
    assert ("ignore regions" in said) == (kind in NO_CROWD and num_crowd > 0)
    assert "boxes are not the same" not in said and not re.search(r"\d boxes are left out", said)
    if kind == "coco":
        assert not done.differences


@given(st.tuples(numbers, numbers, numbers, numbers))
@settings(max_examples=200, deadline=None)
def test_corners_are_the_box(box: tuple[float, float, float, float]) -> None:
    texts = to_corners(box)
    assert to_xywh([exact(text) for text in texts]) == box
    assert [exact(each) for each in json.loads(f"[{', '.join(texts)}]", parse_float=str)] == [exact(t) for t in texts]


@given(st.tuples(numbers, numbers, numbers, numbers), st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)))
@settings(max_examples=200, deadline=None)
def test_relative_numbers_are_the_box(box: tuple[float, float, float, float], size: tuple[int, int]) -> None:
    assert from_relative([exact(text) for text in to_relative(box, size)], size) == box


def test_written_numbers_are_short() -> None:
    assert to_corners([466, 441, 27, 29]) == ["466", "441", "493", "470"]
    assert to_relative([100, 50, 40, 20], (400, 640)) == ["0.187500", "0.150000", "0.062500", "0.050000"]


def small_table() -> AnnotationTable:
    return coco.to_table(
        {
            "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
            "categories": [{"id": 3, "name": "hole"}, {"id": 5, "name": "dent"}],
            "annotations": [
                {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 6},
                {"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
            ],
        },
        "table",
    )


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("coco", []),
        ("voc", ["ids of classes are others", "ids of images are others", "areas of 1 boxes"]),
        ("txt", ["1 ignore regions are left out", "ids of images", "areas of 1"]),
        ("competition", ["1 images without boxes are left out, such as 'b.jpg'", "1 ignore", "ids", "ids", "areas"]),
    ],
)
def test_what_is_lost_is_said(tmp_path: Path, kind: str, expected: list[str]) -> None:
    done = convert(small_table(), tmp_path / "out", kind)
    assert len(done.differences) == len(expected)
    assert all(line.startswith(start) for line, start in zip(done.differences, expected, strict=True))


def test_lost_classes_and_images_are_said() -> None:
    table = small_table()
    other = replace(table, category_names=["hole", "x"], boxes_xywh=table.boxes_xywh + 1)
    lines = differences(table, other)
    assert "1 classes without boxes are left out: 'dent'" in lines and "1 boxes are left out" not in lines
    assert any("not the same" in line for line in lines)


def test_one_file(tmp_path: Path) -> None:
    done = convert(small_table(), tmp_path / "x.csv", "csv")
    assert done.ann_file.is_file() and [path.name for path in tmp_path.iterdir()] == ["x.csv"]
    assert "1 classes without boxes are left out: 'dent'" not in done.differences
    with pytest.raises(InputError, match="exists already"):
        convert(small_table(), tmp_path / "x.csv", "csv")


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("yolo", {}, "image 'a.jpg': its size is not known"),
        ("voc", {"file_names": ["a.jpg", "A.png"]}, "images 'a.jpg' and 'A.png' would both have A.xml"),
        ("voc", {"file_names": ["../a.jpg", "b.jpg"]}, "image '../a.jpg' lies outside"),
        ("txt", {"file_names": ["classes.jpg", "b.jpg"]}, "which is a list of classes"),
        ("voc", {"category_names": ["a\x01", "b"]}, "has a character that XML cannot hold"),
        ("txt", {"category_names": ["a\nb", "b"]}, "whose name has several lines"),
        ("csv", {"file_names": ["\ud83d.jpg", "b.jpg"]}, "half a character"),
        ("vocc", {}, "did you mean voc"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, kind: str, changes: dict[str, list[str]], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        convert(replace(small_table(), **changes), tmp_path / "out", kind)
    assert not list(tmp_path.iterdir())


def test_every_reader_has_a_writer() -> None:
    assert WRITERS.names() == ["coco", "competition", "csv", "labelme", "txt", "voc", "yolo"]


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        ("1 2", of_names("open,short"), {"open": 1, "short": 2}),
        ("0 1", of_names("open, short"), {"open": 1, "short": 2}),
        ("b a", of_names("b,c,a"), {"b": 1, "c": 2, "a": 3}),
        ("4 7", ClassList(["x", "y"], [7, 4], "list"), {"y": 4, "x": 7}),
    ],
)
def test_classes_of_a_list(tmp_path: Path, names: str, classes: ClassList, expected: dict[str, int]) -> None:
    write(tmp_path, {"a.txt": "".join(f"1 2 3 4 {name}\n" for name in names.split())})
    before = read_annotations(tmp_path, None, "txt")
    table = with_classes(before, classes)
    assert dict(zip(table.category_names, table.category_ids, strict=True)) == expected
    if "4" not in names and "0" not in names and "1" not in names:
        assert [row[1] for row in rows_of(table)] == names.split()
    with pytest.raises(InputError, match="lacks the class|no name for class|count from"):
        with_classes(before, of_names("z"))


def test_coco_stays_as_it_stands(tmp_path: Path) -> None:
    data = coco.to_coco(small_table())
    data["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
    coco.save(data, tmp_path / "a.json")
    assert coco_of(tmp_path / "a.json") == data


@pytest.mark.parametrize("name", ["bccd", "tiny_coco"])
def test_real_data_there_and_back(data_dir: Path, tmp_path: Path, name: str) -> None:
    table = coco.read(data_dir / name / "annotations" / "instances_val.json")
    images = data_dir / name / "val"
    for kind in ("voc", "yolo", "csv"):
        done = convert(table, tmp_path / kind, kind, images)
        after = read_annotations(done.ann_file, images, kind)
        assert rows_of(after) == [
            row for row in sorted(rows_of(table), key=lambda row: row[0]) if kind != "yolo" or not row[3]
        ]
