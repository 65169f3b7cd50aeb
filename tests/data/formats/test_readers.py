"""Readers of formats other than COCO: small files worked by hand, and their faults, one line each."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.data.annotations import AnnotationTable
from engine.data.formats.recognise import read_annotations, recognise
from engine.errors import InputError

Rows = list[tuple[str, str, list[float], bool]]


def rows_of(table: AnnotationTable) -> Rows:
    """(file, class, x y width height, crowd) of each box, as the table has them."""
    return [
        (table.file_names[image], table.category_names[category], box, crowd)
        for image, category, box, crowd in zip(
            table.image_rows.tolist(),
            table.category_rows.tolist(),
            table.boxes_xywh.tolist(),
            table.crowd.tolist(),
            strict=True,
        )
    ]


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Text files below `folder`; names of images get a picture of 80 x 100 pixels."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".png"):
            cv2.imwrite(str(path), np.full((80, 100, 3), 90, np.uint8))
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def voc(objects: str, name: str = "a.jpg") -> str:
    size = "<size><width>100</width><height>80</height><depth>3</depth></size>"
    return f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def voc_object(name: str = "hole", corners: tuple[str, ...] = ("1", "2", "11", "22"), more: str = "") -> str:
    sides = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{sides}</bndbox></object>"


# ---------------------------------------------------------------- what is read


def test_voc(tmp_path: Path) -> None:
    difficult = voc_object("dent", ("5.5", "6", "7", "4"), "<difficult>1</difficult><pose>Left</pose>")
    write(
        tmp_path,
        {
            "images/a.png": "",
            "images/sub/b.jpg": "",
            "images/unlisted.jpg": "",
            "Annotations/a.xml": voc(voc_object() + difficult, r"C:\data\other.jpg"),
            "Annotations/sub/b.xml": voc("", "b.jpg"),
        },
    )
    table = read_annotations(tmp_path / "Annotations", tmp_path / "images")
    assert rows_of(table) == [
        ("a.png", "hole", [1.0, 2.0, 10.0, 20.0], False),
        ("a.png", "dent", [5.5, 6.0, 1.5, -2.0], True),
    ]
    assert list(table.file_names) == ["a.png", "sub/b.jpg"] and list(table.image_ids) == [1, 2]
    assert table.category_ids == [1, 2] and table.category_names == ["dent", "hole"]
    assert table.sizes.tolist() == [[80, 100], [80, 100]]
    all_images = read_annotations(tmp_path / "Annotations", tmp_path / "images", unlisted_are_empty=True)
    assert list(all_images.file_names) == ["a.png", "sub/b.jpg", "unlisted.jpg"] and all_images.image_ids[2] == 3
    without = read_annotations(tmp_path / "Annotations", None)
    assert list(without.file_names) == ["other.jpg", "sub/b.jpg"]


def test_a_list_of_voc(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "Annotations/a.xml": voc(voc_object()),
            "Annotations/b.xml": voc(voc_object(), "b.jpg"),
            "ImageSets/Main/train.txt": "\ufeffb\r\nnone\r\n",
            "ImageSets/Main/hole_val.txt": "a  1\nb -1\n",
        },
    )
    table = read_annotations(tmp_path / "ImageSets/Main/train.txt", None)
    assert list(table.file_names) == ["b.jpg", "none.jpg"] and len(rows_of(table)) == 1
    assert list(read_annotations(tmp_path / "ImageSets/Main/hole_val.txt", None).file_names) == ["a.jpg", "b.jpg"]


def test_voc_in_chinese_encodings(tmp_path: Path) -> None:
    text = '<?xml version="1.0" encoding="gb2312"?>' + voc(voc_object("破洞"))
    write(tmp_path, {"a.xml": text.encode("gb2312"), "b.xml": voc(voc_object("破洞"), "b.jpg").encode("utf-8-sig")})
    assert {name for _, name, _, _ in rows_of(read_annotations(tmp_path, None))} == {"破洞"}


YOLO = "0 0.5 0.5 0.1 0.25\n1 .1 .1 .3 .1 .3 .5\n"


@pytest.mark.parametrize(
    ("names", "ann_file"),
    [
        ({"data.yaml": "path: ..\ntrain: images/train\nnames:\n  0: no\n  1: dent\n"}, "data.yaml"),
        ({"data.yaml": "nc: 2\nnames: [no, dent]\n"}, "labels/train"),
        ({"classes.txt": "no\ndent\n"}, "labels/train"),
        ({"labels/train/classes.txt": "no\ndent\n", "train.txt": "./images/train/a.jpg\nimages/train/b.jpg\n"}, None),
    ],
)
def test_yolo(tmp_path: Path, names: dict[str, str], ann_file: str | None) -> None:
    write(tmp_path, {"images/train/a.jpg": "", "images/train/b.jpg": "", "labels/train/a.txt": YOLO, **names})
    if ann_file is None:
        (tmp_path / "classes.txt").write_text("no\ndent\n")
        table = read_annotations(tmp_path / "train.txt", tmp_path / "images/train", "yolo")
    else:
        table = read_annotations(tmp_path / ann_file, tmp_path / "images/train")
    assert rows_of(table) == [
        ("a.jpg", "no", [45.0, 30.0, 10.0, 20.0], False),
        ("a.jpg", "dent", [10.0, 8.0, 20.0, 32.0], False),
    ]
    assert list(table.file_names) == ["a.jpg", "b.jpg"] and table.category_ids == [1, 2]
    assert table.sizes.tolist() == [[80, 100]] * 2


@pytest.mark.parametrize(
    ("lines", "classes"),
    [
        ("1 2 11 22 broken thread\r\n0 0 5 5 dent\r\n", ["broken thread", "dent"]),
        ("\ufeffx1,y1,x2,y2,class\n1,2,11,22, broken thread \n\n0, 0, 5, 5, dent\n", ["broken thread", "dent"]),
        ("1\t2\t11\t22\tbroken thread\n0;0;5;5;dent;\n", ["broken thread", "dent"]),
        ("(1, 2, 11, 22), broken thread\n0 0 5 5 dent", ["broken thread", "dent"]),
        ("1 2 11 22 3\n0 0 5 5 1\n", ["3", "1"]),
        ("1 2 11 22 type 2\n0 0 5 5 3 way valve\n", ["type 2", "3 way valve"]),
    ],
)
def test_txt(tmp_path: Path, lines: str, classes: list[str]) -> None:
    write(tmp_path, {"img/00041000_test.jpg": "", "img/00041000_temp.jpg": "", "ann/00041000.txt": lines})
    table = read_annotations(tmp_path / "ann", tmp_path / "img")
    boxes = [[1.0, 2.0, 10.0, 20.0], [0.0, 0.0, 5.0, 5.0]]
    assert rows_of(table) == [("00041000_test.jpg", *each, False) for each in zip(classes, boxes, strict=True)]


@pytest.mark.parametrize(
    ("class_list", "number", "expected"),
    [
        ("open\nshort\n", "1 2", {"open": 1, "short": 2}),
        ("open\nshort\n", "0 1", {"open": 1, "short": 2}),
        ("1-open\n2-short\n3-spur", "1 1", {"open": 1, "short": 2, "spur": 3}),
        ("4 open\n7: short", "4 7", {"open": 4, "short": 7}),
        ("hole\ndent", "dent hole", {"hole": 1, "dent": 2}),
        ("hole\nelse", "dent hole", {"dent": 1, "hole": 2}),
    ],
)
def test_classes_of_txt(tmp_path: Path, class_list: str, number: str, expected: dict[str, int]) -> None:
    rows = "".join(f"1 2 3 4 {each}\n" for each in number.split())
    write(tmp_path, {"a.txt": rows, "classes.txt": class_list})
    table = read_annotations(tmp_path, None, "txt")
    assert dict(zip(table.category_names, table.category_ids, strict=True)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,100,80,hole,1,2,11,22\nb.jpg,100,80,,,,,\n",
        "Image Name;Label;X;Y;W;H;image_width;image_height\na.jpg;hole;1,0;2;10;20;100;80\nb.jpg;;;;;;100;80\n",
        "path\tx_min\ty_min\tx_max\ty_max\tlabel\timg_w\timg_h\na.jpg\t1\t2\t11\t22\thole\t100\t80\nb.jpg\t\t\t\t\t\t100\t80\n",
        'image_id,image_width,image_height,bbox,label\na.jpg,100,80,"[1.0, 2, 10, 20]",hole\nb.jpg,100,80,,\n',
        "name,left,top,width,height,defect_name,image_width,image_height\na.jpg,1,2,10,20,hole,100,80\nb.jpg,,,,,,100,80\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv(tmp_path: Path, text: str, encoding: str) -> None:
    write(tmp_path, {"a.csv": text.replace("\n", "\r\n").encode(encoding)})
    table = read_annotations(tmp_path / "a.csv", tmp_path)
    assert rows_of(table) == [("a.jpg", "hole", [1.0, 2.0, 10.0, 20.0], False)]
    assert list(table.file_names) == ["a.jpg", "b.jpg"] and table.sizes.tolist() == [[80, 100]] * 2


def test_csv_of_keras_retinanet(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "images/a.jpg": "",
            "images/b.jpg": "",
            "classes.csv": "scratch,1\nhole,0\n",
            "a.csv": f"images/a.jpg,1,2,11,22,hole\n{tmp_path}/images/b.jpg,,,,,\n",
        },
    )
    table = read_annotations(tmp_path / "a.csv", tmp_path / "images")
    assert rows_of(table) == [("a.jpg", "hole", [1.0, 2.0, 10.0, 20.0], False)]
    assert list(table.file_names) == ["a.jpg", "b.jpg"]
    assert dict(zip(table.category_names, table.category_ids, strict=True)) == {"hole": 0, "scratch": 1}


def test_names_of_images_in_tables(tmp_path: Path) -> None:
    """Without their suffix, with the path of another machine, with the folder of the images; each is one image."""
    rows = [r"C:\data\x\a.jpg", "/home/x/b.jpg", "c", "images/d.jpg"]
    text = "image_id,x,y,w,h,class\n" + "".join(f"{name},1,2,3,4,hole\n" for name in rows)
    write(tmp_path, {"a.csv": text, **{f"images/{name}.jpg": "" for name in "abcde"}})
    table = read_annotations(tmp_path / "a.csv", tmp_path / "images")
    assert list(table.file_names) == [f"{name}.jpg" for name in "abcd"]
    more = read_annotations(tmp_path / "a.csv", tmp_path / "images", unlisted_are_empty=True)
    assert list(more.file_names) == [f"{name}.jpg" for name in "abcde"]


def shape(points: list[list[float]], label: str = "hole", **more: object) -> dict[str, object]:
    return {"label": label, "points": points, "shape_type": "polygon", "flags": {}, "group_id": None, **more}


def test_labelme(tmp_path: Path) -> None:
    shapes = [
        shape([[11.5, 2], [1, 22.25]], shape_type="rectangle"),
        shape([[1, 2], [11, 2], [5, 9]], "dent", flags={"ignore": True, "checked": True}),
        shape([[10, 10], [13, 14]], shape_type="circle"),
        shape([[0, 0], [4, 4], [4, 0]], "dent", group_id=1),
        shape([[6, 6], [8, 8], [8, 6]], "dent", group_id=1),
    ]
    data = {"version": "5", "shapes": shapes, "imagePath": r"..\x\a.jpg", "imageHeight": 80, "imageWidth": 100}
    write(tmp_path, {"ann/a.json": json.dumps(data), "ann/b.json": json.dumps({**data, "shapes": []}), "ann/b.jpg": ""})
    table = read_annotations(tmp_path / "ann", tmp_path / "ann")
    assert rows_of(table) == [
        ("a.jpg", "hole", [1.0, 2.0, 10.5, 20.25], False),
        ("a.jpg", "dent", [1.0, 2.0, 10.0, 7.0], True),
        ("a.jpg", "hole", [5.0, 5.0, 10.0, 10.0], False),
        ("a.jpg", "dent", [0.0, 0.0, 8.0, 8.0], False),
    ]
    assert list(table.file_names) == ["a.jpg", "b.jpg"] and table.sizes.tolist() == [[80, 100]] * 2


def test_competition(tmp_path: Path) -> None:
    entries = [
        {"name": "b.jpg", "defect_name": "破洞", "bbox": [1.1, 2, 11.2, 22]},
        {"name": "a.jpg", "defect_name": "污渍", "bbox": [0, 0, 5, 5]},
        {"name": "b.jpg", "defect_name": "污渍", "bbox": [3, 3, 4, 4]},
    ]
    write(tmp_path, {"anno_train.json": json.dumps(entries), "images/normal.jpg": "", "images/a.jpg": ""})
    table = read_annotations(tmp_path / "anno_train.json", tmp_path / "images")
    assert rows_of(table) == [
        ("a.jpg", "污渍", [0.0, 0.0, 5.0, 5.0], False),
        ("b.jpg", "破洞", [1.1, 2.0, 10.1, 20.0], False),
        ("b.jpg", "污渍", [3.0, 3.0, 1.0, 1.0], False),
    ]
    more = read_annotations(tmp_path / "anno_train.json", tmp_path / "images", "competition", unlisted_are_empty=True)
    assert list(more.file_names) == ["a.jpg", "b.jpg", "normal.jpg"]


# ---------------------------------------------------------------- recognition


def test_recognition(tmp_path: Path) -> None:
    files = {
        "coco.json": '{"info": {}, "images": []',
        "results.json": '[{"image_id": 1, "category_id": 2, "bbox": [], "score": 1}]',
        "list.json": '[{"name": "a", "defect_name": "b", "bbox": []}]',
        "one.json": '{"version": "5", "imageData": "' + "x" * 100_000 + '", "shapes": []}',
        "a.csv": "x",
        "plain/a.txt": "0 0 0 1 1\n1 2 30 40 0\n",
        "names/a.txt": "1 2 30 40 hole",
        "yolo/a.txt": "0 1 1 1 1\n0 0.5 0.5 1 1\n",
        "voc/Annotations/a.xml": "",
        "labelme/a.json": '{"shapes": [], "imageData": ""}',
        "keras.txt": "a.jpg,1,2,3,4,hole\n",
        "train.txt": "images/a.jpg\n",
    }
    write(tmp_path, files)
    expected = dict.fromkeys(("coco.json", "results.json"), "coco") | {
        "list.json": "competition",
        "one.json": "labelme",
        "a.csv": "csv",
        "plain": "txt",
        "names": "txt",
        "yolo": "yolo",
        "voc": "voc",
        "voc/Annotations": "voc",
        "labelme": "labelme",
        "keras.txt": "csv",
        "train.txt": "yolo",
    }
    assert {name: recognise(tmp_path / name) for name in expected} == expected


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.txt": ""}, ["all of its 1 text files are empty", "txt, yolo"]),
        ({"a.txt": "0 0 1 1 1"}, ["may be txt or yolo"]),
        ({"a.bin": "x"}, ["in no format", "competition, csv, labelme, txt, voc, yolo"]),
        ({"sub/a.json": "{}"}, ["is a folder; name the file with the annotations, such as", "x/sub/a.json"]),
        ({"a.xml": "", "b.json": '{"shapes": []}'}, ["may be voc or labelme"]),
    ],
)
def test_unclear_formats_are_one_line(tmp_path: Path, files: dict[str, str], words: list[str]) -> None:
    write(tmp_path / "x", files)
    with pytest.raises(InputError) as error:
        recognise(tmp_path / "x")
    assert "\n" not in str(error.value) and str(tmp_path / "x") in str(error.value)
    assert all(word in str(error.value) for word in words)


# ---------------------------------------------------------------- the raw originals


def coco_rows(path: Path) -> dict[str, tuple[int, list[tuple[int, list[float]]]]]:
    data = json.loads(path.read_text())
    names = {row["id"]: row["file_name"] for row in data["images"]}
    rows: dict[str, tuple[int, list[tuple[int, list[float]]]]] = {name: (id_, []) for id_, name in names.items()}
    for row in data["annotations"]:
        rows[names[row["image_id"]]][1].append((row["category_id"], row["bbox"]))
    return rows


@pytest.mark.parametrize("name", ["bccd", "deeppcb"])
def test_raw_originals_are_the_coco_files(data_dir: Path, tmp_path: Path, name: str) -> None:
    if name == "bccd":
        table = read_annotations(data_dir / "raw/bccd_voc/Annotations", None)
    else:
        raw = tmp_path / "raw"
        raw.mkdir()
        for path in (data_dir / "raw/deeppcb_txt").glob("*_test.txt"):
            (raw / path.name).symlink_to(path)
        (raw / "classes.txt").write_text("1-open\n2-short\n3-mousebite\n4-spur\n5-copper\n6-pin-hole\n")
        table = read_annotations(raw, None)
    for part in ("train", "val"):
        path = data_dir / name / "annotations" / f"instances_{part}.json"
        categories = {row["name"]: row["id"] for row in json.loads(path.read_text())["categories"]}
        assert dict(zip(table.category_names, table.category_ids, strict=True)) == categories
        wanted = coco_rows(path)
        found: dict[str, tuple[int, list[tuple[int, list[float]]]]] = {
            file: (id_, []) for id_, file in zip(table.image_ids, table.file_names, strict=True)
        }
        for image, category, box in zip(table.image_rows, table.category_rows, table.boxes_xywh.tolist(), strict=True):
            found[table.file_names[image]][1].append((table.category_ids[category], box))
        assert wanted.keys() <= found.keys()
        for file, (image_id, boxes) in wanted.items():
            assert found[file][1] == boxes
            assert name == "deeppcb" or found[file][0] == image_id  # of deeppcb, every third image is here


def test_csv_from_excel_may_name_its_separator(tmp_path: Path) -> None:
    text = "sep=;\r\nfilename;xmin;ymin;xmax;ymax;class\r\na.jpg;1,5;2;3;4;hole\r\n"
    write(tmp_path, {"a.csv": text})
    assert rows_of(read_annotations(tmp_path / "a.csv", None)) == [("a.jpg", "hole", [1.5, 2.0, 1.5, 2.0], False)]
    write(tmp_path, {"a.csv": text.replace("3;4", "3;x")})
    with pytest.raises(InputError, match=r"a\.csv:3: its box"):
        read_annotations(tmp_path / "a.csv", None)
