"""The data sets of a folder: annotations, images and splits, in the layouts that people have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.data.formats.find_sets import FoundSet, find_sets, split_of
from engine.errors import InputError
from tests.data.formats.test_readers import shape, voc, voc_object, write


def coco(*names: str) -> str:
    images = [{"id": k, "file_name": name} for k, name in enumerate(names)]
    return json.dumps({"images": images, "categories": [{"id": 1, "name": "hole"}], "annotations": []})


LABELME = json.dumps({"shapes": [shape([[1, 1], [2, 2]])], "imagePath": "a.jpg"})
COMPETITION = json.dumps([{"name": "a.jpg", "defect_name": "hole", "bbox": [1, 2, 3, 4]}])
ROW = "0 0.5 0.5 0.1 0.1\n"

TWO_IMAGES = ("coco of one folder", "folders with images of their own")
LAYOUTS: dict[str, tuple[dict[str, str], list[tuple[str, str, str, str]]]] = {
    "coco": (
        {
            "train2017/a.jpg": "",
            "val2017/b.jpg": "",
            "annotations/instances_train2017.json": coco("a.jpg"),
            "annotations/instances_val2017.json": coco("b.jpg"),
            "annotations/captions_val2017.json": "{}",
            "package.json": '{"name": "x"}',
        },
        [
            ("train", "train2017", "annotations/instances_train2017.json", "coco"),
            ("val", "val2017", "annotations/instances_val2017.json", "coco"),
        ],
    ),
    "folders with images of their own": (
        {
            "labels/line1/a.txt": ROW,
            "labels/line2/a.txt": ROW,
            "images/line1/a.jpg": "",
            "images/line2/a.jpg": "",
        },
        [("", "images", "labels", "yolo")],
    ),
    "Label Studio's YOLO": (
        {"images/a.jpg": "", "labels/a.txt": ROW, "classes.txt": "hole\n", "notes.json": '{"categories": []}'},
        [("", "images", "labels", "yolo")],
    ),
    "coco of one folder": (
        {"images/a.jpg": "", "images/b.jpg": "", "all.json": coco("a.jpg", "b.jpg")},
        [("", "images", "all.json", "coco")],
    ),
    "Roboflow's COCO": (
        {
            "train/a.jpg": "",
            "train/_annotations.coco.json": coco("a.jpg"),
            "valid/b.jpg": "",
            "valid/_annotations.coco.json": coco("b.jpg"),
        },
        [
            ("train", "train", "train/_annotations.coco.json", "coco"),
            ("val", "valid", "valid/_annotations.coco.json", "coco"),
        ],
    ),
    "voc": (
        {
            "JPEGImages/a.jpg": "",
            "Annotations/a.xml": voc(voc_object()),
            "ImageSets/Main/train.txt": "a\n",
            "ImageSets/Main/val.txt": "a\n",
            "ImageSets/Main/hole_val.txt": "a 1\n",
        },
        [
            ("train", "JPEGImages", "ImageSets/Main/train.txt", "voc"),
            ("val", "JPEGImages", "ImageSets/Main/val.txt", "voc"),
        ],
    ),
    "voc beside the images": (
        {"train/a.jpg": "", "train/a.xml": voc(voc_object()), "test/b.jpg": "", "test/b.xml": voc(voc_object())},
        [("train", "train", "train", "voc"), ("test", "test", "test", "voc")],
    ),
    "yolo": (
        {
            "images/train/a.jpg": "",
            "images/val/b.jpg": "",
            "labels/train/a.txt": ROW,
            "labels/val/b.txt": ROW,
            "data.yaml": "train: images/train\nval: images/val\nnames: [hole]\n",
        },
        [("train", "images/train", "data.yaml", "yolo"), ("val", "images/val", "data.yaml", "yolo")],
    ),
    "Roboflow's YOLO": (
        {
            "train/images/a.jpg": "",
            "train/labels/a.txt": ROW,
            "valid/images/b.jpg": "",
            "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: [hole]\n",
        },
        [("train", "train/images", "data.yaml", "yolo"), ("val", "valid/images", "data.yaml", "yolo")],
    ),
    "yolo without data.yaml": (
        {"images/a.jpg": "", "labels/a.txt": ROW, "classes.txt": "hole\n"},
        [("", "images", "labels", "yolo")],
    ),
    "deeppcb": (
        {"pcb/00041/00041000_test.jpg": "", "pcb/00041_not/00041000.txt": "1 2 30 40 3\n", "readme.txt": "x"},
        [("", "pcb/00041", "pcb/00041_not", "txt")],
    ),
    "labelme": ({"a.jpg": "", "a.json": LABELME}, [("", ".", ".", "labelme")]),
    "competition": (
        {"defect_Images/a.jpg": "", "Annotations/anno_train.json": COMPETITION},
        [("train", "defect_Images", "Annotations/anno_train.json", "competition")],
    ),
    "csv": (
        {"images/a.jpg": "", "labels.csv": "images/a.jpg,1,2,3,4,hole\n", "classes.csv": "hole,0\n"},
        [("", ".", "labels.csv", "csv")],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    files, expected = LAYOUTS[layout]
    root = write(tmp_path / "mine", files)
    found = find_sets(root)
    assert found == [FoundSet(split, root / images, root / ann, kind) for split, images, ann, kind in expected]
    for each in found:
        if each.split != "val" or "Roboflow's YOLO" not in layout:
            assert len(each.read().image_ids) == (2 if layout in TWO_IMAGES else 1)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.txt": "1 2 3 4 x"}, "holds no images"),
        ({"a.jpg": ""}, "no annotations were found beside its images"),
        ({"a.jpg": "", "b.json": coco("other.jpg")}, "no annotations were found"),
    ],
)
def test_nothing_found_is_one_line(tmp_path: Path, files: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        find_sets(write(tmp_path / "x", files))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        find_sets(tmp_path / "none")


def test_splits_of_names() -> None:
    names = {
        "train.json": "train",
        "a_valid.csv": "val",
        "x/test/a.json": "test",
        "training.json": "train",
        "b.json": "",
    }
    assert {name: split_of(Path(name)) for name in names} == names


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("bccd", [("train", "coco", 292), ("val", "coco", 72)]),
        ("tiny_coco", [("train", "coco", 32), ("val", "coco", 6)]),
    ],
)
def test_real_data(data_dir: Path, name: str, kinds: list[tuple[str, str, int]]) -> None:
    found = find_sets(data_dir / name)
    assert [(each.split, each.format, len(each.read().image_ids)) for each in found] == kinds
