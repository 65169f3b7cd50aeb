from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data import sizes


def test_headers_are_read_and_the_stated_size_stays_where_that_fails(tmp_path: Path) -> None:
    Image.new("L", (30, 20)).save(tmp_path / "0.png")
    Image.new("L", (8, 9)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    stated = np.array([[0, 0], [9, 7], [5, 6], [0, 0]], dtype=np.int32)  # of 3.png there is no file
    found, failed = sizes.measure_sizes(lambda index: tmp_path / f"{index}.png", stated)
    assert failed.tolist() == [2, 3]
    assert found.tolist() == [[20, 30], [9, 8], [5, 6], [0, 0]]
    assert stated.tolist() == [[0, 0], [9, 7], [5, 6], [0, 0]]


def test_of_a_very_large_set_some_headers_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "MOST_HEADERS", 3)
    read = []
    monkeypatch.setattr(sizes, "read_size", lambda path, expected, rule: read.append(int(path.name)) or (1, 1))
    stated = np.full((11, 2), 7, dtype=np.int32)
    stated[4] = 0
    found, _ = sizes.measure_sizes(lambda index: Path(str(index)), stated)
    assert sorted(read) == [0, 4, 5, 10]  # spread evenly over those that are stated, and each that is not
    assert [index for index in range(11) if found[index, 0] == 1] == [0, 4, 5, 10]


def test_no_images() -> None:
    empty = np.zeros((0, 2), dtype=np.int32)
    assert sizes.measure_sizes(lambda index: Path(), empty)[0].shape == (0, 2)
    assert sizes.size_faults(empty, empty) == []


@pytest.mark.parametrize(
    ("stated", "measured", "words"),
    [
        ((480, 640), (480, 640), []),
        ((0, 0), (480, 640), []),
        ((480, 640), (640, 480), ["1 with width and height exchanged"]),
        ((480, 640), (240, 320), ["1 resized by 0.5"]),
        ((479, 640), (239, 320), ["1 resized by 0.5"]),
        ((100, 101), (33, 33), ["1 resized by 0.33"]),
        ((480, 640), (960, 1280), ["1 resized by 2"]),
        ((480, 640), (480, 480), ["1 of other proportions"]),
        ((480, 640), (1, 640), ["1 of other proportions"]),
    ],
)
def test_kinds_of_wrong_sizes(stated: tuple[int, int], measured: tuple[int, int], words: list[str]) -> None:
    assert sizes.size_faults(np.array([stated]), np.array([measured])) == words


def test_kinds_are_counted() -> None:
    stated = np.array([[10, 20]] * 5 + [[100, 200]] * 2)
    measured = np.array([[20, 10], [20, 10], [10, 20], [7, 7], [10, 20], [50, 100], [80, 160]])
    assert sizes.size_faults(stated, measured) == [
        "2 with width and height exchanged",
        "2 resized by 0.5 to 0.8",
        "1 of other proportions",
    ]
