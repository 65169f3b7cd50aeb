"""Result files of competitions: names, corners and scores as they were found."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from engine.errors import InputError
from engine.evaluation.result_files import RESULT_FORMATS, result_entries, write_competition, write_csv
from tests.evaluation.test_results import detections

FOUND = [
    ("布 1.jpg", detections([[1, 2, 4.1, 6], [0, 0, 1, 1]], [0.9, 0.1], [1, 0])),
    ("b.jpg", detections([], [], [])),
]


def test_entries() -> None:
    entries = result_entries(FOUND, ["hole", "破洞"])
    assert entries == [
        {"name": "布 1.jpg", "category": "破洞", "bbox": [1.0, 2.0, 4.1, 6.0], "score": 0.9},
        {"name": "布 1.jpg", "category": "hole", "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.1},
    ]
    assert result_entries(FOUND, ["hole", "破洞"], min_score=0.5) == entries[:1]


def test_numbers_are_the_same_float32() -> None:
    boxes = torch.rand(200, 4, generator=torch.Generator().manual_seed(0)) * 1000
    found = detections(boxes.tolist(), boxes[:, 0].div(1000).tolist(), [0] * 200)
    entries = result_entries([("a", found)], ["hole"])
    assert torch.equal(torch.tensor([entry["bbox"] for entry in entries]), found.boxes)
    assert torch.equal(torch.tensor([entry["score"] for entry in entries]), found.scores)
    assert all(len(str(entry["bbox"][0])) <= 10 for entry in entries)


def test_a_score_that_is_not_finite_is_one_line() -> None:
    with pytest.raises(InputError, match="image 'a.jpg': the box or score"):
        result_entries([("a.jpg", detections([[0, 0, 1, 1]], [float("nan")], [0]))], ["hole"])


@pytest.mark.parametrize("found", [FOUND, FOUND[1:]])
def test_files(tmp_path: Path, found: list[tuple[str, object]]) -> None:
    entries = result_entries(found, ["hole", "破洞"])
    path = write_competition(entries, tmp_path)
    assert path.name == "result.json" and json.loads(path.read_text(encoding="utf-8")) == entries
    path = write_csv(entries, tmp_path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["category"], float(row["xmax"]), float(row["score"])) for row in rows] == [
        (entry["name"], entry["category"], entry["bbox"][2], entry["score"]) for entry in entries
    ]


def test_names_of_formats() -> None:
    assert RESULT_FORMATS.names() == ["competition", "csv"]
