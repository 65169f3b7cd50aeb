"""Which file of annotations belongs to which image, where folders of several splits hold the same names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.data.formats.conversion import convert
from engine.data.formats.files_below import files_below
from engine.data.formats.recognise import read_annotations
from engine.errors import InputError
from tests.data.formats.test_readers import rows_of, shape, voc, voc_object, write

ROWS = {"train": "0 0.5 0.5 0.2 0.2\n", "val": "1 0.5 0.5 0.4 0.4\n"}


def yolo(folder: Path) -> Path:
    """Both splits have an image a."""
    files = {f"labels/{split}/a.txt": row for split, row in ROWS.items()}
    images = {f"images/{split}/a.jpg": "" for split in ROWS}
    return write(folder, {**files, **images, "data.yaml": "names: [hole, dent]\n"})


def test_labels_of_another_split_are_not_taken(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    yolo(tmp_path)
    for split, name in (("train", "hole"), ("val", "dent")):
        table = read_annotations(tmp_path / "labels", tmp_path / "images" / split, "yolo")
        assert [row[1] for row in rows_of(table)] == [name]
    assert "1 text files have no image in" in said.text and "val/a.txt" in said.text


def test_labels_that_may_be_of_several_images_are_one_line(tmp_path: Path) -> None:
    write(tmp_path, {"labels/a.txt": ROWS["train"], "x/a.jpg": "", "y/a.jpg": "", "b/labels/l/a.txt": ROWS["val"]})
    with pytest.raises(InputError, match=r"labels/a\.txt: is it of image 'x/a' or 'y/a'"):
        read_annotations(tmp_path / "labels", tmp_path, "yolo")
    write(tmp_path, {"b/labels/r/a.txt": ROWS["val"], "b/i/a.jpg": ""})
    with pytest.raises(InputError, match=r"image 'a\.jpg' may have .*/l/a\.txt or .*/r/a\.txt; name the folder"):
        read_annotations(tmp_path / "b" / "labels", tmp_path / "b" / "i", "yolo")


def test_suffixes_in_capitals(tmp_path: Path) -> None:
    write(tmp_path, {"images/a.jpg": "", "labels/a.TXT": ROWS["train"], "data.yaml": "names: [hole]\n"})
    assert len(rows_of(read_annotations(tmp_path / "data.yaml", tmp_path / "images"))) == 1


@pytest.mark.parametrize(
    ("kind", "suffix", "text"),
    [
        ("voc", ".xml", voc(voc_object())),
        ("txt", ".txt", "1 2 3 4 hole\n"),
        (
            "labelme",
            ".json",
            json.dumps({"shapes": [shape([[1, 1], [2, 2]])]}),
        ),
    ],
)
def test_two_files_about_one_image_are_one_line(tmp_path: Path, kind: str, suffix: str, text: str) -> None:
    write(tmp_path, {f"ann/l/a{suffix}": text, f"ann/r/a{suffix}": text, "l/a.jpg": "", "r/a.jpg": ""})
    assert len(rows_of(read_annotations(tmp_path / "ann", tmp_path, kind))) == 2
    with pytest.raises(InputError, match=r"l/a\..* and .*r/a\..* are both about the image 'a\.jpg'"):
        read_annotations(tmp_path / "ann", tmp_path / "l", kind)


@pytest.mark.parametrize("line", ["JPEGImages\\l\\a.jpg", "./l/a", "/data/VOC/JPEGImages/l/a.jpg 1", "l/a.webp"])
def test_lines_of_lists_are_paths_of_any_system(tmp_path: Path, line: str) -> None:
    write(tmp_path, {"Annotations/l/a.xml": voc(voc_object()), "train.txt": line, "images/l/a.jpg": ""})
    table = read_annotations(tmp_path / "train.txt", tmp_path / "images", "voc")
    assert list(table.file_names) == ["l/a.jpg"] and len(table.crowd) == 1


def test_blanks_before_the_suffix(tmp_path: Path) -> None:
    write(tmp_path, {"ann/a .txt": "1 2 3 4 hole\n", "images/a .png": ""})
    assert list(read_annotations(tmp_path / "ann", tmp_path / "images").file_names) == ["a .png"]


def test_numbers_of_a_numbered_list_are_no_names(tmp_path: Path) -> None:
    """Classes called 0 and 1 with the numbers 1 and 2."""
    write(tmp_path, {"ann/a.txt": "1 2 3 4 1\n", "ann/classes.txt": "1 0\n2 1\n"})
    assert [row[1] for row in rows_of(read_annotations(tmp_path / "ann", None))] == ["0"]


def test_missing_images_are_said(tmp_path: Path) -> None:
    write(tmp_path, {"ann/a.txt": "1 2 3 4 hole\n", "ann/b.txt": "", "images/a.jpg": ""})
    table = read_annotations(tmp_path / "ann", tmp_path / "images")
    done = convert(table, tmp_path / "out.json", "coco", tmp_path / "images")
    assert f"1 image files are missing in {tmp_path / 'images'}, such as 'b.jpg'" in done.differences
    with pytest.raises(InputError, match="nowhere: is no folder"):
        convert(table, tmp_path / "new.json", "coco", tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["coco", "yolo", "txt"])
def test_no_boxes_and_no_classes(tmp_path: Path, kind: str) -> None:
    write(tmp_path, {"ann/a.txt": "", "images/a.jpg": ""})
    table = read_annotations(tmp_path / "ann", tmp_path / "images", "txt")
    with pytest.raises(InputError, match="no boxes, so no classes for .*; name them with --classes"):
        convert(table, tmp_path / "out", kind, tmp_path / "images")


def test_folders_that_cannot_be_opened_are_said(
    tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"a.txt": "", "closed/b.txt": ""})
    scandir = os.scandir

    def refusing(folder: str) -> object:
        if folder.endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert files_below(tmp_path, (".txt",)) == ["a.txt"] and files_below(tmp_path / "none", (".txt",)) == []
    assert "closed: cannot be opened (Permission denied); what it holds is not read" in said.text


def test_pixels_for_fractions_are_said(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    write(tmp_path, {"images/a.jpg": "", "labels/a.txt": "0 .5 .5 .1 .1\n0 50 50 20 20\n", "data.yaml": "names: [a]\n"})
    read_annotations(tmp_path / "labels", tmp_path / "images", "yolo")
    assert "labels/a.txt:2: has numbers above 2" in said.text
