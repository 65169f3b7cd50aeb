from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from engine.data.image_file import write_image
from engine.errors import InputError
from engine.inference.folder import counts_table, draw_folder, list_images
from engine.structures import Detections


class Finder:
    """Stands in for a predictor: one hole in every image, and a stain in wide ones."""

    class_names = ["hole", "stain"]
    thresholds = torch.tensor([0.25, 0.5])

    def __call__(self, image: np.ndarray) -> Detections:
        labels = torch.tensor([0, 1] if image.shape[1] > 50 else [0])
        boxes = torch.tensor([[4.0, 4.0, 30.0, 20.0]]).repeat(len(labels), 1)
        return Detections(boxes, torch.full((len(labels),), 0.9), labels, image.shape[:2])


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, width in (("b.png", 40), ("a 布.JPG", 80)):
        write_image(folder / name, np.full((40, width, 3), 128, np.uint8))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    (folder / "readme.txt").write_text("no image")
    return folder


def test_draws_what_can_be_read(images: Path, tmp_path: Path) -> None:
    counts = draw_folder(Finder(), list_images(images), tmp_path / "new" / "out")
    assert {path.name: row.tolist() for path, row in counts.items()} == {"a 布.JPG": [1, 1], "b.png": [1, 0]}
    drawn = cv2.imread(str(tmp_path / "new" / "out" / "b.png"))
    assert drawn.shape == (40, 40, 3) and (drawn != 128).any()
    rows = [line.split() for line in counts_table(counts, Finder()).splitlines()]
    assert rows[2:] == [["hole", "2", "2", "0.250"], ["stain", "1", "1", "0.500"], ["all", "3", "2"]]


def test_originals_are_never_overwritten(images: Path) -> None:
    before = (images / "b.png").read_bytes()
    for output in (images, images / ".." / "images"):
        with pytest.raises(InputError, match="overwritten"):
            draw_folder(Finder(), list_images(images), output)
    assert (images / "b.png").read_bytes() == before


def test_an_output_that_is_a_file(images: Path) -> None:
    with pytest.raises(InputError, match="cannot be created"):
        draw_folder(Finder(), list_images(images), images / "readme.txt")


def test_nothing_to_draw(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 1 images"):
        draw_folder(Finder(), [images / "broken.jpg"], tmp_path / "out")
    with pytest.raises(InputError, match="is not a folder"):
        list_images(images / "readme.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        list_images(tmp_path / "empty")
