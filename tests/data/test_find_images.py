from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.find_images import find_images
from engine.errors import InputError


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, other files and sub-folders; the current folder is above it."""
    folder = tmp_path / "parts"
    for name in ("b.PNG", "a.jpg", "notes.txt", "LICENSE", ".hidden.jpg", "left/a.jpg", "left/x.tif", "a[1].webp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "folder.jpg").mkdir()
    monkeypatch.chdir(tmp_path)
    return folder


def found(*places: str | Path, **options: object) -> list[str]:
    images = find_images(places, **options)
    assert all(path.name == name.name for path, name in zip(images.paths, images.names, strict=True))
    return [name.as_posix() for name in images.names]


def test_a_folder_and_what_is_left_out(parts: Path) -> None:
    images = find_images([parts])
    assert [path.name for path in images.paths] == ["a.jpg", "a[1].webp", "b.PNG"]
    assert images.summary() == (
        "left out: 1 hidden, 1 not an image (.txt), 1 not an image (without suffix), 2 sub-folder(s), see --recursive"
    )


def test_sub_folders(parts: Path) -> None:
    (parts / "left" / "back").symlink_to(parts, target_is_directory=True)  # a circle
    assert found(parts, recursive=True) == ["a.jpg", "a[1].webp", "b.PNG", "left/a.jpg", "left/x.tif"]


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (["parts/*.jpg"], ["a.jpg"]),
        (["parts/*/*"], ["left/a.jpg", "left/x.tif"]),
        (["parts/**/a.jpg"], ["a.jpg", "left/a.jpg"]),
        (["parts/a[1].webp"], ["a[1].webp"]),  # a file of that name before the pattern
        (["parts/notes.txt", "parts/.hidden.jpg"], ["notes.txt", ".hidden.jpg"]),  # the user's word
        (["parts/left", "parts/a.jpg"], ["a.jpg", "x.tif", "a.jpg"]),
    ],
)
def test_files_and_patterns(parts: Path, places: list[str], names: list[str]) -> None:
    assert found(*places) == names


def test_a_file_named_twice_is_taken_once(parts: Path) -> None:
    (parts / "link.jpg").symlink_to("a.jpg")
    images = find_images(["parts", parts / "a.jpg", "parts/*.jpg"])
    assert [path.name for path in images.paths] == ["a.jpg", "a[1].webp", "b.PNG"]
    assert images.left_out["named twice"] == 4


def test_pictures_of_an_earlier_run_are_no_images(parts: Path) -> None:
    images = find_images(["parts/**/*.jpg"], skip=parts / "left")
    assert [path.name for path in images.paths] == ["a.jpg"]
    assert images.left_out["in the folder of pictures (--output-dir)"] == 1
    assert len(found(parts / "left", skip=parts / "left")) == 2  # refused later, with the reason


@pytest.mark.parametrize(
    ("place", "answer"),
    [
        ("parts/folder.jpg", r"holds no images \(.jpg, .jpeg, .png, .bmp, .tif, .tiff, .webp\)$"),
        ("parts/*.txt", "holds no images .*left out: 1 not an image"),
        ("parts/*.gif", "matches no file"),
        ("pars", "'pars': is not a file, a folder or a pattern"),
        ("", "'': is not a file"),
    ],
)
def test_no_image_is_one_line(parts: Path, place: str, answer: str) -> None:
    with pytest.raises(InputError, match=answer):
        find_images([place])


def test_arrays_are_taken_where_a_pattern_names_them(parts: Path) -> None:
    (parts / "z.npy").touch()
    assert found("parts/*.npy") == found("parts/z.npy") == ["z.npy"]
    assert "z.npy" not in found("parts") and "z.npy" not in found("parts/*")
