"""Detections in other forms, read again where there is a reader."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engine.data.crops import crops
from engine.data.formats import labelme, yolo
from engine.data.image_file import write_image
from engine.data.results import (
    competition_text,
    csv_text,
    labelme_text,
    to_coco,
    to_dict,
    to_entries,
    yolo_text,
)
from engine.errors import InputError
from engine.structures import Detections

NAMES = ["hole", "破洞"]
BOXES = [[1.1, 2.0, 4.3, 6.0], [0.0, 0.0, 20.0, 10.0]]


def of_torch(boxes: Any = BOXES, scores: Any = (0.9, 0.1), labels: Any = (1, 0), size: Any = (10, 20)) -> Detections:
    return Detections(
        torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels, dtype=torch.int64), size
    )


def of_numpy() -> SimpleNamespace:
    found = of_torch().numpy()
    assert isinstance(found.boxes, np.ndarray) and isinstance(found, Detections)
    return SimpleNamespace(boxes=found.boxes, scores=found.scores, labels=found.labels, size=found.size)


def nothing() -> Detections:
    return Detections.empty(size=(10, 20))


@pytest.fixture(params=[of_torch, of_numpy])
def found(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_dictionary(found: Any) -> None:
    assert json.loads(json.dumps(to_dict(found, NAMES))) == {
        "size": [10, 20],
        "detections": [
            {"class": "破洞", "score": 0.9, "box": [1.1, 2.0, 4.3, 6.0]},
            {"class": "hole", "score": 0.1, "box": [0.0, 0.0, 20.0, 10.0]},
        ],
    }
    assert to_dict(nothing(), NAMES) == {"size": [10, 20], "detections": []}


def test_coco(found: Any) -> None:
    first, second = to_coco(found, 7, [9, 3])
    width = float(np.float32(4.3) - np.float32(1.1))
    assert first == {
        "image_id": 7,
        "category_id": 3,
        "bbox": [float(np.float32(1.1)), 2.0, width, 4.0],
        "score": float(np.float32(0.9)),
    }
    assert second["category_id"] == 9 and to_coco(nothing(), 7, [9, 3]) == []


def test_entries_as_competition_and_csv(found: Any) -> None:
    entries = to_entries(found, "a,b.jpg", NAMES)
    assert entries[0] == {"name": "a,b.jpg", "category": "破洞", "bbox": [1.1, 2.0, 4.3, 6.0], "score": 0.9}
    assert to_entries(found, "a,b.jpg", NAMES, min_score=0.5) == entries[:1]
    assert json.loads(competition_text(entries)) == entries and json.loads(competition_text([])) == []
    header, *rows = csv.reader(csv_text(entries).splitlines())
    assert header == ["name", "category", "xmin", "ymin", "xmax", "ymax", "score"]
    assert rows[0] == ["a,b.jpg", "破洞", "1.1", "2.0", "4.3", "6.0", "0.9"] and len(rows) == 2


def test_labelme_is_an_annotation_file_with_scores(found: Any, tmp_path: Path) -> None:
    text = labelme_text(found, "parts/a.jpg", NAMES)
    content = json.loads(text)
    assert content["imagePath"] == "a.jpg" and (content["imageHeight"], content["imageWidth"]) == (10, 20)
    assert [(each["label"], each["score"]) for each in content["shapes"]] == [("破洞", 0.9), ("hole", 0.1)]
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    table = labelme.read(tmp_path)
    assert table.boxes_xywh.tolist() == [[1.1, 2.0, 3.2, 4.0], [0.0, 0.0, 20.0, 10.0]]
    assert [table.category_names[row] for row in table.category_rows] == ["破洞", "hole"]
    assert json.loads(labelme_text(nothing(), "a.jpg", NAMES))["shapes"] == []


def test_yolo_without_scores_is_an_annotation_file(found: Any, tmp_path: Path) -> None:
    for line, score in zip(yolo_text(found).splitlines(), ("0.9", "0.1"), strict=True):
        label, *center, last = line.split()
        assert len(center) == 4 and last == score and label in "01"
    write_image(tmp_path / "images" / "a.png", np.zeros((10, 20, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(yolo_text(found, with_scores=False))
    (tmp_path / "data.yaml").write_text("names: [hole, stain]\n")
    table = yolo.read(tmp_path / "data.yaml", tmp_path / "images")
    assert table.boxes_xywh.tolist() == [[1.1, 2.0, 3.2, 4.0], [0.0, 0.0, 20.0, 10.0]]
    assert table.category_rows.tolist() == [1, 0] and yolo_text(nothing()) == ""


@pytest.mark.parametrize(
    "convert",
    [
        lambda found: to_dict(found, NAMES, "a.jpg"),
        lambda found: to_coco(found, "a.jpg", [1, 2]),
        lambda found: to_entries(found, "a.jpg", NAMES),
        lambda found: labelme_text(found, "a.jpg", NAMES),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite(convert: Callable[[Any], Any], value: float) -> None:
    for found in (of_torch(scores=(0.9, value)), of_torch(boxes=[[0.0, 0.0, 1.0, value], BOXES[1]])):
        with pytest.raises(InputError, match="image 'a.jpg': the box or score of a detection is not finite"):
            convert(found)


def test_neither_torch_nor_what_reads_annotations_is_imported() -> None:
    imports = "import sys, engine.data.results, engine.data.crops"
    code = f"{imports}; sys.exit(bool({{'torch', 'yaml', 'fvcore'}} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


# ---------------------------------------------------------------- crops


@pytest.mark.parametrize(
    ("box", "margin", "expected"),  # expected: x1, y1, x2, y2 of whole pixels
    [
        ([5, 2, 10, 6], 0.0, (5, 2, 10, 6)),
        ([5, 2, 15, 6], 0.1, (4, 1, 16, 7)),  # by 1.0 and 0.4 pixels, outward
        ([5.5, 2.5, 9.5, 5.5], 0.0, (5, 2, 10, 6)),
        ([0, 0, 20, 10], 0.5, (0, 0, 20, 10)),  # no further than the image
        ([20, 10, 20, 10], 0.1, (19, 9, 20, 10)),  # a box without area, at the far corner
        ([3, 3, 3, 3], 0.1, (3, 3, 4, 4)),
    ],
)
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_crops(box: list[float], margin: float, expected: tuple[int, ...], channels: tuple[int, ...]) -> None:
    image = np.arange(200 * int(np.prod(channels)), dtype=np.float32).reshape(10, 20, *channels)
    boxes = torch.tensor([box, [0, 0, 1, 1]], dtype=torch.float32)
    first, second = crops(image, of_torch(boxes=boxes.tolist()), margin)
    x1, y1, x2, y2 = expected
    assert np.array_equal(first, image[y1:y2, x1:x2]) and second.size
    first[:] = -1
    assert image.min() >= 0  # they are copies


def test_crops_of_nothing_and_of_another_image() -> None:
    assert crops(np.zeros((10, 20, 3), np.uint8), nothing()) == []
    with pytest.raises(ValueError, match=r"of an image of \(10, 20\)"):
        crops(np.zeros((20, 10, 3), np.uint8), of_torch())
    with pytest.raises(ValueError, match="margin"):
        crops(np.zeros((10, 20, 3), np.uint8), of_torch(), -0.1)
