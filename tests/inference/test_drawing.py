from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.data.image_file import read_image, write_image
from engine.data.reading import Reading
from engine.errors import InputError
from engine.inference.drawing import draw_items
from engine.inference.items import find_items
from engine.structures import Detections


class Finder:
    """Stands in for a predictor: one hole in every image, and a stain in wide ones."""

    class_names = ["hole", "stain"]
    thresholds = torch.tensor([0.25, 0.5])

    def pixels(self, path: Path) -> np.ndarray:
        return read_image(path, reading=Reading((0.0, 4095.0)))

    def __call__(self, images: list[np.ndarray]) -> list[Detections]:
        return [self.detect(image) for image in images]

    def detect(self, image: np.ndarray) -> Detections:
        labels = torch.tensor([0, 1] if image.shape[1] > 50 else [0])
        boxes = torch.tensor([[4.0, 4.0, 30.0, 20.0]]).repeat(len(labels), 1)
        return Detections(boxes, torch.full((len(labels),), 0.9), labels, image.shape[:2])


def grey(path: Path, width: int = 40, value: int = 128) -> Path:
    write_image(path, np.full((40, width, 3), value, np.uint8))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    grey(folder / "b.png")
    grey(folder / "a 布.JPG", 80)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    (folder / "readme.txt").write_text("no image")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_draws_what_can_be_read(images: Path, tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    tally = draw_items(Finder(), find_items([str(images)]), tmp_path / "new" / "out")
    assert tally.detections.tolist() == [2, 1] and tally.images.tolist() == [2, 1] and tally.num_unreadable == 1
    drawn = cv2.imread(str(tmp_path / "new" / "out" / "b.png"))
    assert drawn.shape == (40, 40, 3) and (drawn != 128).any()
    rows = [line.split() for line in tally.table().splitlines()]
    assert rows[2:] == [["hole", "2", "2", "0.250"], ["stain", "1", "1", "0.500"], ["all", "3", "2"]]
    lines = [record.getMessage() for record in said.records]
    assert lines[-2].endswith("out, 1 unreadable skipped") and lines[-1] == "left out: 1 not an image (.txt)"


def test_originals_are_never_overwritten(images: Path) -> None:
    before = (images / "b.png").read_bytes()
    for output in (images, images / ".." / "images"):
        with pytest.raises(InputError, match="overwritten"):
            draw_items(Finder(), find_items([str(images)]), output)
    assert (images / "b.png").read_bytes() == before


def test_nor_through_links(images: Path, tmp_path: Path) -> None:
    before, out = (images / "b.png").read_bytes(), tmp_path / "out"
    out.mkdir()
    os.link(images / "b.png", out / "b.png")
    draw_items(Finder(), find_items([str(images / "b.png")]), out)
    assert (images / "b.png").read_bytes() == before != (out / "b.png").read_bytes()
    (out / "b.png").unlink()
    (out / "b.png").symlink_to(images / "b.png")
    with pytest.raises(InputError, match="is one of the images, which would be overwritten"):
        draw_items(Finder(), find_items([str(images / "b.png")]), out)
    (out / "sub").symlink_to(images, target_is_directory=True)
    top = tmp_path / "top"
    top.mkdir()
    (top / "sub").symlink_to(images, target_is_directory=True)
    with pytest.raises(InputError, match="overwritten"):
        draw_items(Finder(), find_items([str(top)], recursive=True), out)
    other = grey(tmp_path / "elsewhere.png")
    (out / "b.png").unlink()
    (out / "b.png").symlink_to(other)  # a link to something else becomes a picture, and that is left alone
    original = other.read_bytes()
    draw_items(Finder(), find_items([str(images / "b.png")]), out)
    assert other.read_bytes() == original and not (out / "b.png").is_symlink()


def test_two_images_of_one_name_give_two_pictures(tmp_path: Path) -> None:
    for place in ("x", "y", "z/deep"):
        grey(tmp_path / place / "a.png", value=100)
    grey(tmp_path / "y" / "A.PNG", value=100)
    found = find_items([str(tmp_path / "x"), str(tmp_path / "y"), str(tmp_path / "z")], recursive=True)
    draw_items(Finder(), found, tmp_path / "out")
    assert names(tmp_path / "out") == ["A_2.PNG", "a.png", "a_3.png", "deep/a.png"]
    draw_items(Finder(), found, tmp_path / "out")  # replaces those of the earlier run
    assert len(names(tmp_path / "out")) == 4


def test_a_picture_has_a_format_that_can_be_written(tmp_path: Path) -> None:
    gradient = np.tile(np.linspace(0, 4095, 60).astype(np.uint16), (40, 1))
    deep, floats = tmp_path / "images" / "deep.tif", tmp_path / "images" / "floats.tiff"
    deep.parent.mkdir()
    cv2.imwrite(str(deep), gradient)
    cv2.imwrite(str(floats), gradient.astype(np.float32))
    grey(tmp_path / "images" / "a.webp")
    bare = grey(tmp_path / "b.png").rename(tmp_path / "b.frame")
    draw_items(Finder(), find_items([str(deep.parent), str(bare)]), tmp_path / "out")
    assert names(tmp_path / "out") == ["a.webp", "b.frame.png", "deep.tif", "floats.tiff"]
    for name in ("deep.tif", "floats.tiff"):
        drawn = cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        assert drawn.dtype == np.uint8 and (drawn[-1, :, 0] == np.rint(gradient[0] / 4095 * 255)).all()


def test_an_output_that_is_a_file(images: Path) -> None:
    with pytest.raises(InputError, match="cannot be created"):
        draw_items(Finder(), find_items([str(images)]), images / "readme.txt")


def test_nothing_to_draw(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 1 images"):
        draw_items(Finder(), find_items([str(images / "broken.jpg")]), tmp_path / "out")


def test_damaged_images_are_named_and_counted(
    tmp_path: Path, damaged_jpeg: bytes, said: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cut.jpg").write_bytes(damaged_jpeg)
    draw_items(Finder(), find_items([str(tmp_path / "cut.jpg")]), tmp_path / "out")
    warnings = [each.getMessage() for each in said.records if each.levelno == logging.WARNING]
    assert len(warnings) == 1 and "cut.jpg: damaged (Corrupt JPEG data" in warnings[0]
    assert said.records[-1].getMessage().endswith("out, 1 of them with a warning")
