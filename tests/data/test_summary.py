from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest

from engine.data.dataset import ConcatDataset
from engine.data.summary import DataSummary, check_trainable, report, report_useless, summarize
from engine.errors import InputError
from tests.conftest import WriteCoco
from tests.data.conftest import annotation, open_coco

IMAGES = [(number, 20, 40) for number in range(1, 5)]  # four images, 40 wide and 20 high


def summary_of(folder: Path, min_size: int = 20, **options: Any) -> DataSummary:
    (summary,) = summarize(open_coco(folder, **options), min_size, 10 * min_size)
    return summary


def test_counts_by_hand(write_coco: WriteCoco) -> None:
    boxes = {
        1: [[1, 1, 2, 2], [5, 5, 0, 4], [5, 5, 3, -1], [-9, 0, 10, 10], [39, 0, 10, 10]],
        2: [[40, 0, 5, 5], [0, -5, 5, 5], [3, 3, 0.4, 9]],
    }
    annotations = [annotation(image, 3, box) for image, rows in boxes.items() for box in rows]
    annotations += [annotation(3, 7, [0, 0, 9, 9], iscrowd=1), annotation(3, 7, [2, 2, 9, 9])]
    summary = summary_of(write_coco(IMAGES, annotations))
    assert (summary.num_images, summary.num_annotations, summary.ignore_regions) == (4, 10, 1)
    assert summary.boxes == {"scratch": 4, "hole": 1} and summary.num_boxes == 5
    assert summary.images_without_boxes == 1
    assert summary.oddities == {
        "without_area": 2,
        "outside": 2,
        "reaching_outside": 2,
        "under_a_pixel": 1,
        "repeated_files": 0,
        "repeated_boxes": 0,
        "other_sizes": 0,
        "unreadable_files": 0,
    }
    assert summary.line() == ("data set toy: 4 images, 1 without boxes; 5 boxes (scratch 4, hole 1), 1 to ignore")
    assert summary.faults == [
        "2 of 9 boxes have no area and are dropped",
        "2 of 9 boxes lie outside their image and are dropped",
        "2 of 9 boxes reach beyond their image and are clipped",
        "1 of 9 boxes are narrower than a pixel after resizing",
    ]
    assert summary.mistake is None
    json.dumps(summary.record())


def test_resizing_decides_what_is_under_a_pixel(write_coco: WriteCoco) -> None:
    folder = write_coco(IMAGES, [annotation(1, 3, [3, 3, 4, 9])])
    found = {min_size: summary_of(folder, min_size).oddities["under_a_pixel"] for min_size in (4, 5, 20)}
    assert found == {4: 1, 5: 0, 20: 0}  # 4 pixels become 0.8, 1 and 4


def test_images_left_out_are_not_counted(write_coco: WriteCoco) -> None:
    folder = write_coco(IMAGES, [annotation(2), annotation(3, iscrowd=1), annotation(4, bbox=[1, 1, 0, 0])])
    summary = summary_of(folder, filter_empty=True)
    assert (summary.num_images, summary.num_annotations, summary.num_boxes) == (1, 1, 1)


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ([], "there are no annotations"),
        ([annotation(1, iscrowd=1), annotation(2, iscrowd=1)], "all 2 annotations are ignore regions"),
        (
            [annotation(1, bbox=[1, 1, 0, 5]), annotation(2, bbox=[99, 1, 5, 5]), annotation(3, iscrowd=1)],
            "of 3 annotations 1 are ignore regions, 1 have no area, 1 lie outside their image",
        ),
    ],
)
def test_nothing_to_train_on_is_an_error(write_coco: WriteCoco, annotations: list[dict], reason: str) -> None:
    summary = summary_of(write_coco(IMAGES, annotations))
    with pytest.raises(InputError, match=f"there is no box to train on: data set toy: {reason}"):
        check_trainable([summary])


def test_the_reason_is_found_although_no_image_is_left(write_coco: WriteCoco) -> None:
    folder = write_coco(IMAGES, [annotation(1, iscrowd=1), annotation(2, iscrowd=1)])
    summary = summary_of(folder, filter_empty=True)
    assert summary.num_images == 0
    with pytest.raises(InputError, match="all 2 annotations are ignore regions"):
        check_trainable([summary])


def test_one_of_several_sets_may_have_no_boxes(write_coco: WriteCoco) -> None:
    full = open_coco(write_coco(IMAGES, [annotation(2)]))
    empty = open_coco(write_coco(IMAGES, [], name="clean"))
    summaries = summarize(ConcatDataset([full, empty]), 20, 100)
    assert [each.num_boxes for each in summaries] == [1, 0]
    check_trainable(summaries)
    with pytest.raises(InputError, match="data set clean: there are no annotations"):
        check_trainable(summaries[1:])


def test_relative_boxes_are_recognised(write_coco: WriteCoco) -> None:
    folder = write_coco(IMAGES, [annotation(1, bbox=[0.1, 0.5, 0.9, 0.5]), annotation(2, bbox=[0.5, 0.6, 1, 1])])
    with pytest.raises(InputError, match=r"2 of 2 boxes lie between 0 and 1: they are relative"):
        check_trainable([summary_of(folder)])
    mixed = write_coco(IMAGES, [annotation(1, bbox=[0.1, 0.5, 0.8, 0.4]), annotation(2)], name="mixed")
    summary = summary_of(mixed)
    assert "1 of 2 boxes lie between 0 and 1, as if they were relative to the image" in summary.faults
    check_trainable([summary])


@pytest.mark.parametrize(("scale", "recognised"), [(100, True), (99, True), (85, False), (110, False)])
def test_percentages_are_guessed(write_coco: WriteCoco, scale: float, recognised: bool) -> None:
    boxes = [[0.04 * step * scale, 0.02 * step * scale, 0.2 * scale, 0.5 * scale] for step in range(1, 21)]
    boxes.append([0, 0, scale, scale])
    folder = write_coco([(1, 200, 250)], [annotation(bbox=box) for box in boxes[-21:]])
    assert any("are they percentages?" in fault for fault in summary_of(folder).faults) == recognised


def test_corner_coded_boxes_are_recognised(write_coco: WriteCoco) -> None:
    corners = [(1, [30, 10, 35, 15]), (2, [1, 1, 40, 20]), (3, [20, 2, 39, 9])]
    summary = summary_of(write_coco(IMAGES, [annotation(image, bbox=box) for image, box in corners]))
    with pytest.raises(InputError, match=r"data set toy: .* 3 of 3 fit as \[x1, y1, x2, y2\]"):
        check_trainable([summary])


@pytest.mark.parametrize(
    "boxes",
    [
        [[30, 10, 15, 15], [30, 5, 35, 15], [20, 2, 39, 9]],  # the first is none, as corners
        [[1, 1, 40, 20], [2, 1, 40, 20], [2, 2, 40, 20]],  # reach beyond the image by little: drawn over its edge
        [[1, 2, 30, 10], [2, 3, 20, 8], [30, 10, 35, 15]],  # reach beyond one image
    ],
)
def test_other_boxes_are_not_taken_for_corners(write_coco: WriteCoco, boxes: list[list[int]]) -> None:
    folder = write_coco(IMAGES, [annotation(number, bbox=box) for number, box in enumerate(boxes, 1)])
    check_trainable([summary_of(folder)])


def test_half_of_the_boxes_lost_is_said_with_the_reason(write_coco: WriteCoco) -> None:
    annotations = [annotation(1, bbox=[10, 5, 5, 5]), annotation(1, bbox=[60, 30, 10, 5])]
    folder = write_coco(IMAGES, annotations)
    faults = summary_of(folder).faults
    assert faults[-1] == ("classes without boxes: 'hole'") and faults[-2] == (
        "1 of 2 boxes are lost: they reach to x 70, y 35, but their images end at 40, 20; were the images resized or "
        "cropped after labelling?"
    )
    data = json.loads((folder / "ann.json").read_text())
    for image in data["images"]:
        image |= {"height": 40, "width": 80}
    (folder / "ann.json").write_text(json.dumps(data))
    faults = summary_of(folder).faults
    assert faults[0] == (
        "4 image files do not have the stated size: 4 resized by 0.5; the size of the file is used; boxes that belong "
        "to the stated size must be scaled with it"
    )
    assert faults[-2].startswith("1 of 2 boxes are lost: the images were resized after labelling; scale the boxes too")


def test_a_file_listed_several_times_is_counted(write_coco: WriteCoco) -> None:
    folder = write_coco(IMAGES, [annotation(number) for number in range(1, 5)])
    data = json.loads((folder / "ann.json").read_text())
    for image in data["images"][1:3]:
        image["file_name"] = data["images"][0]["file_name"]
    (folder / "ann.json").write_text(json.dumps(data))
    summary = summary_of(folder)
    assert summary.oddities["repeated_files"] == 2
    assert "2 images have the file name of an earlier image" in summary.faults


def test_of_many_classes_the_rarest_are_listed(write_coco: WriteCoco) -> None:
    categories = tuple((number, f"c{number}") for number in range(1, 101))
    folder = write_coco(IMAGES, [annotation(1, number) for number in range(5, 101)], categories)
    summary = summary_of(folder)
    assert "96 boxes (100 classes, the rarest: c1 0, c2 0, c3 0, c4 0, c5 1," in summary.line()
    assert summary.line().count("c") < 30
    assert "classes without boxes: 'c1', 'c2', 'c3', 'c4'" in summary.faults


def test_numbers_that_overflow_are_no_warning(write_coco: WriteCoco) -> None:
    folder = write_coco(IMAGES, [annotation(1, bbox=[1e308, 0, 1e308, 1]), annotation(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert summary_of(folder).oddities["outside"] == 1


def test_what_is_said(write_coco: WriteCoco, said: pytest.LogCaptureFixture) -> None:
    """In training a mistake is the error itself; a test goes on, so there it is a warning."""
    summaries = summarize(open_coco(write_coco(IMAGES, [annotation(bbox=[0.1, 0.1, 0.2, 0.2])])), 20, 100)
    report(summaries)
    levels = [record.levelno for record in said.records]
    assert levels[0] == logging.INFO and set(levels[1:]) == {logging.WARNING}
    assert all(record.getMessage().startswith("data set toy: ") for record in said.records)
    assert "they are relative" not in said.text
    report_useless(summaries)
    assert "they are relative" in said.records[-1].getMessage()


def test_a_test_set_with_nothing_to_find_is_said(write_coco: WriteCoco, said: pytest.LogCaptureFixture) -> None:
    report_useless(summarize(open_coco(write_coco(IMAGES, [])), 20, 100))
    assert "data set toy: there is nothing to find: there are no annotations" in said.text


@pytest.mark.parametrize("odd", [[0, 0, 0, 0], [5, 5, 5, 9], [-0.01, 0.2, 0.1, 0.1]])
def test_a_few_odd_boxes_do_not_hide_relative_ones(write_coco: WriteCoco, odd: list[float]) -> None:
    boxes = [[0.1, 0.2, 0.3, 0.04 * k] for k in range(1, 20)]
    folder = write_coco(IMAGES, [annotation(k % 4 + 1, bbox=box) for k, box in enumerate([*boxes, odd])])
    with pytest.raises(InputError, match="they are relative to the size of the image"):
        check_trainable([summary_of(folder)])


@pytest.mark.parametrize("odd", [[5, 5, 5, 9], [3, 3, 43, 15], [20, 10, 5, 5]], ids=["empty", "beyond", "right"])
def test_a_few_odd_boxes_do_not_hide_corner_coordinates(write_coco: WriteCoco, odd: list[float]) -> None:
    boxes = [[20 + k, 9, 36, 11 + k % 8] for k in range(15)]
    folder = write_coco(IMAGES, [annotation(k % 4 + 1, bbox=box) for k, box in enumerate([*boxes, odd])])
    with pytest.raises(InputError, match="15 of 16 fit as"):
        check_trainable([summary_of(folder)])


def test_boxes_that_reach_far_otherwise_are_said(write_coco: WriteCoco) -> None:
    folder = write_coco(IMAGES, [annotation(number, bbox=[30, 10, 20, 20]) for number in range(1, 5)])
    summary = summary_of(folder)
    check_trainable([summary])
    assert any(fault.startswith("most images have boxes that reach far beyond them") for fault in summary.faults)


def test_missing_files_and_repeated_boxes_are_counted(write_coco: WriteCoco) -> None:
    rows = [annotation(1), annotation(1), annotation(1, 7), annotation(2), annotation(1)]
    folder = write_coco(IMAGES, rows)
    for number in (0, 3):
        (folder / "images" / f"{number}.png").unlink()
    summary = summary_of(folder)
    assert (summary.oddities["unreadable_files"], summary.oddities["repeated_boxes"]) == (2, 2)
    assert summary.faults[0] == "2 image files are missing or cannot be read"
    assert "2 of 5 boxes repeat another box of their image and class" in summary.faults


def test_classes_left_out_are_not_missed(write_coco: WriteCoco) -> None:
    folder = write_coco(IMAGES, [annotation(1, 7)])
    assert summary_of(folder).faults == ["classes without boxes: 'scratch'"]
    assert summary_of(folder, kept_classes=["hole"], other_classes="drop").faults == []
