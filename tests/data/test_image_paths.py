"""Names of image files as other programs and systems spell them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.data.image_paths import find_file_names
from engine.errors import InputError
from tests.data.conftest import annotation, open_coco

COMPOSED, DECOMPOSED = "d\u00e9faut.jpg", "de\u0301faut.jpg"


def found(folder: Path, *file_names: str) -> list[str]:
    return list(find_file_names("toy", folder, file_names))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`images` with a file in it and one in `images/sub dir`."""
    images = tmp_path / "images"
    (images / "sub dir").mkdir(parents=True)
    for name in ("a.jpg", "my part.JPG", "sub dir/b.png"):
        (images / name).touch()
    return images


@pytest.mark.parametrize(
    ("written", "actual"),
    [
        ("sub dir\\b.png", "sub dir/b.png"),
        ("sub dir\\\\b.png", "sub dir/b.png"),
        (".\\a.jpg", "a.jpg"),
        (" a.jpg", "a.jpg"),
        ("a.jpg\u00a0", "a.jpg"),
        ("sub dir /b.png ", "sub dir/b.png"),
        ("a.JPG", "a.jpg"),
        ("my part.jpg", "my part.JPG"),
        ("my%20part.jpg", "my part.JPG"),
        ("images/a.jpg", "a.jpg"),
        ("images\\sub%20dir\\b.PNG", "sub dir/b.png"),
        ("C:\\users\\me\\images\\a.jpg", "a.jpg"),
    ],
)
def test_a_file_is_found_under_another_spelling(
    folder: Path, said: pytest.LogCaptureFixture, written: str, actual: str
) -> None:
    assert found(folder, "a.jpg", written, "gone.jpg") == ["a.jpg", actual, "gone.jpg"]
    (line,) = said.messages
    assert line.startswith(f"toy: 1 of 3 file names are spelled differently in {folder}: ") and f"'{actual}'" in line


@pytest.mark.parametrize("forms", [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_either_unicode_form_is_found(tmp_path: Path, said: pytest.LogCaptureFixture, forms: tuple[str, str]) -> None:
    on_disk, written = forms
    (tmp_path / on_disk).touch()
    assert found(tmp_path, written) == [on_disk]
    assert said.messages[0].count("e\\u0301") == 1  # which of the two it is, can be seen


@pytest.mark.parametrize(
    "written",
    [
        "./a.jpg",
        "sub dir/../a.jpg",
        "sub dir//b.png",
        "A.jpg",  # another file, where case counts
        "b.png",  # in another folder
        "other/a.jpg",
        "../images/a.jpg",
        "..\\images\\a.jpg",
        "%2e%2e/a.jpg",
        "/images/nothing.jpg",
        "sub dir",
        ".",
        "",
        "x" * 5000 + ".jpg",
        "a/" * 2500,
        "a.jpg\0",
        "\udcff.jpg",
    ],
)
def test_other_names_stay_as_they_are(folder: Path, said: pytest.LogCaptureFixture, written: str) -> None:
    assert found(folder, written) == [written] and not said.messages


def test_the_name_as_written_wins(folder: Path, said: pytest.LogCaptureFixture) -> None:
    names = ["a.JPG", "a.jpg ", "my%20part.jpg", "sub dir\\b.png"]
    for name in names:
        (folder / name).touch()
    assert found(folder, *names) == names and not said.messages


def test_a_name_that_fits_several_files_stays(folder: Path) -> None:
    (folder / "a.JPG").touch()
    assert found(folder, "a.Jpg", "a.jpg ") == ["a.Jpg", "a.jpg"]


HASH = "0f3cb2e1" * 4
RENAMED = [
    ("part.png", "part.jpg"),  # the suffix
    ("PART.jpg", "PART.jpg"),
    ("part.jpeg", "part.jpg"),
    (f"part_jpg.rf.{HASH}.jpg", "part.jpg"),  # the annotations of Roboflow, the images as they were
    ("other.jpg", f"other_jpg.rf.{HASH}.jpg"),  # the images of Roboflow, the annotations as they were
    ("other.png", f"other_jpg.rf.{HASH}.jpg"),
    ("0f3cb2e1-part.jpg", "part.jpg"),  # the same of Label Studio
    ("third.jpg", "ab12cd34-third.png"),
    ("images\\0f3cb2e1-part.jpg", "part.jpg"),
    ("sub dir/b.jpg", "sub dir/b.png"),
    ("20240131-part.jpg", None),  # a date
    ("twice.gif", None),  # fits two
    ("b.jpg", None),  # in another folder
    ("notes.jpg", None),  # a text
    ("/part.png", None),
    ("../images/part.png", None),
]


@pytest.mark.parametrize(("written", "actual"), RENAMED)
def test_a_missing_file_is_found_under_another_suffix_or_export(
    folder: Path, said: pytest.LogCaptureFixture, written: str, actual: str | None
) -> None:
    names = ["part.jpg", "PART.jpg", f"other_jpg.rf.{HASH}.jpg", "ab12cd34-third.png", "notes.txt"]
    for name in [*names, "twice.jpg", "twice.png"]:
        (folder / name).touch()
    assert found(folder, written, "gone.jpg") == [actual or written, "gone.jpg"]
    lines = [line for line in said.messages if "differ by their suffix" in line]
    if actual in (None, written):
        assert not lines
    else:
        assert len(lines) == 1 and lines[0].startswith(f"toy: 1 of 2 images are not in {folder}, ")
        assert lines[0].endswith("is read from " + repr(actual))


def test_a_file_that_another_entry_means_is_not_taken(folder: Path, said: pytest.LogCaptureFixture) -> None:
    (folder / "part.jpg").touch()
    for names in (["part.png", "part.jpg"], ["part.png", "part.bmp"], ["part.png", "part.jpg "]):
        expected = [name.strip() if name.endswith(" ") else name for name in names]
        assert found(folder, *names) == expected
    assert not any("differ by their suffix" in line for line in said.messages)


@pytest.mark.parametrize("place", ["/data/upload/1", "/nowhere/sub", r"C:\upload", "D:/x"])
def test_a_path_of_another_machine_is_found_by_its_last_parts(
    folder: Path, said: pytest.LogCaptureFixture, place: str
) -> None:
    (folder / "a.jpg").touch()
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "a.jpg").touch()
    separator = "\\" if "\\" in place else "/"
    written = [f"{place}{separator}a.jpg", f"{place}{separator}gone.jpg"]
    assert found(folder, *written) == ["sub/a.jpg" if place.endswith("sub") else "a.jpg", written[1]]
    assert sum("folder on another machine" in line for line in said.messages) == 1


def test_equal_names_of_folders_on_another_machine_stay(folder: Path) -> None:
    (folder / "a.jpg").touch()
    assert found(folder, "/x/1/a.jpg", "/x/2/a.jpg") == ["/x/1/a.jpg", "/x/2/a.jpg"]


def test_an_export_of_many_is_counted(folder: Path, said: pytest.LogCaptureFixture) -> None:
    written = [f"{number:03d}.jpg" for number in range(50)]
    for number, name in enumerate(written):
        (folder / f"{name[:-4]}_jpg.rf.{number:032x}.jpg").touch()
    assert all((folder / name).exists() for name in found(folder, *written))
    assert sum("50 of 50 images are not in" in line for line in said.messages) == 1


def test_no_folder(tmp_path: Path) -> None:
    assert found(tmp_path / "none", "a\\b.jpg", "a.jpg") == ["a\\b.jpg", "a.jpg"]


def test_each_folder_is_listed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []
    real = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(path) or real(path))
    find_file_names("toy", folder, ["a.jpg", "a.JPG", "sub dir/b.png", "sub dir\\b.png", "a.jpg", "sub dir/c.png"] * 5)
    assert len(listed) == len(set(listed))


def test_a_data_set_reads_them(write_coco: Callable[..., Path], said: pytest.LogCaptureFixture) -> None:
    root = write_coco([(1, 20, 20), (2, 10, 10)], [annotation(1)])
    text = (root / "ann.json").read_text().replace("0.png", "images\\\\0.PNG ").replace("1.png", "./1.png")
    (root / "ann.json").write_text(text)
    data = open_coco(root)
    for copy in (data, pickle.loads(pickle.dumps(data))):
        assert [copy.image_path(index) for index in range(2)] == [root / "images" / f"{k}.png" for k in range(2)]
        assert copy.read(0)[1].size == (20, 20)
    assert list(data.annotations.file_names) == ["images\\0.PNG ", "./1.png"]
    assert [line for line in said.messages if "spelled" in line] == [said.messages[0]]


@pytest.mark.parametrize("name", ["x" * 5000 + ".png", "a/" * 2500 + "b.png", "\udcff.png", "."])
def test_a_name_that_no_file_has_is_one_line(write_coco: Callable[..., Path], name: str) -> None:
    root = write_coco([], [], changes={"images": [{"id": 1, "file_name": name}]})
    with pytest.raises(InputError) as caught:
        open_coco(root).read(0)
    assert "image id 1" in str(caught.value) and "\n" not in str(caught.value)
