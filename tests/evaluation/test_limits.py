"""What limits on the number of detections keep from a test."""

from __future__ import annotations

from typing import Any

from engine.evaluation.limits import limit_notes
from engine.evaluation.matches import Matches, match_detections
from tests.evaluation.conftest import annotation_table


def matched(objects: dict[tuple[int, int], int], found: dict[tuple[int, int], int], num_crowds: int = 0) -> Matches:
    """So many objects and detections for each (image, class), in three images of two classes."""

    def rows(counts: dict[tuple[int, int], int]) -> list[dict[str, Any]]:
        return [
            {"image_id": image, "category_id": category, "bbox": [9.0 * k, 0, 5, 5], "score": 0.5}
            for (image, category), count in counts.items()
            for k in range(count)
        ]

    truth = [{**row, "id": k + 1, "iscrowd": int(k < num_crowds)} for k, row in enumerate(rows(objects))]
    data = {"images": [{"id": i} for i in range(3)], "categories": [{"id": 1}, {"id": 2}], "annotations": truth}
    return match_detections(annotation_table(data), rows(found), [1, 2], [0.5])


def test_nothing_to_say() -> None:
    matches = matched({(0, 1): 3, (0, 2): 3}, {(0, 1): 3, (1, 1): 3})
    assert limit_notes(matches, 3, {"A": 6, "B": 0}) == []
    assert limit_notes(matched({}, {}), 1, {"A": 1}) == []


def test_detections_and_objects_beyond_the_limits() -> None:
    matches = matched({(0, 1): 3, (0, 2): 2, (1, 2): 4}, {(0, 1): 5, (0, 2): 1, (2, 1): 3})
    assert limit_notes(matches, 2, {"MODEL.A": 4, "MODEL.B": 0, "MODEL.C": 3}) == [
        "4 of 9 detections are beyond the best 2 of their image and class (TEST.MAX_DETS); AP and AR do not count them",
        "2 images hold more than 2 objects of one class (up to 4), of which AP and AR see no more; raise TEST.MAX_DETS",
        "1 image holds more than 4 objects (up to 5), but the model finds at most 4; raise MODEL.A",
        "2 images hold more than 3 objects (up to 5), but the model finds at most 3; raise MODEL.C",
    ]


def test_crowds_are_no_objects() -> None:
    assert limit_notes(matched({(0, 1): 5}, {}, num_crowds=3), 2, {"A": 2}) == []
