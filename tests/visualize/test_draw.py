from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import printable
from engine.structures import Detections, Targets
from engine.visualize.colors import class_color
from engine.visualize.draw import (
    IGNORED,
    Mark,
    draw_comparison,
    draw_detections,
    draw_marks,
    draw_targets,
    font_size,
    line_width,
)

GREY = 127


def canvas(height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def detections(boxes: list[list[float]], labels: list[int], size: tuple[int, int] = (120, 160)) -> Detections:
    count = len(boxes)
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.linspace(0.9, 0.5, count),
        labels=torch.tensor(labels, dtype=torch.int64),
        size=size,
    )


def targets(boxes: list[list[float]], ignore: list[bool]) -> Targets:
    return Targets(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        ignore=torch.tensor(ignore, dtype=torch.bool),
        image_id=1,
        size=(120, 160),
    )


def has(image: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    return (image == np.array(rgb[::-1], dtype=np.uint8)).all(axis=2)


def test_the_image_given_is_not_changed_and_no_detections_change_nothing() -> None:
    image = canvas()
    drawn = draw_detections(image, detections([[20, 20, 60, 60]], [0]), ["hole"])
    assert (image == GREY).all() and drawn.shape == image.shape and drawn.dtype == np.uint8
    assert (draw_detections(image, detections([], [])) == image).all()


def test_lines_lie_on_the_box_in_the_class_color() -> None:
    drawn = draw_detections(canvas(), detections([[40, 30, 100, 80]], [3]), show_labels=False)
    ys, xs = np.nonzero(has(drawn, class_color(3)))
    # a line of one pixel; its middle lies within half a pixel of the box
    assert (xs.min(), ys.min()) == (40, 30) and (xs.max(), ys.max()) == (99, 79)
    assert (drawn[40:70, 50:90] == GREY).all()


def test_the_inside_of_a_small_box_stays_visible() -> None:
    drawn = draw_detections(canvas(480, 640), detections([[50, 50, 58, 55]], [0], (480, 640)))
    assert (drawn[51:54, 52:56] == GREY).all()


def test_labels_are_on_the_color_of_their_class() -> None:
    box = [[40.0, 30.0, 100.0, 80.0]]
    bare = has(draw_detections(canvas(), detections(box, [1]), show_labels=False), class_color(1))
    drawn = has(draw_detections(canvas(), detections(box, [1]), ["hole"]), class_color(1))
    rows = np.nonzero(drawn.sum(axis=1) > bare.sum(axis=1) + 20)[0]
    assert len(rows) and rows.max() <= 31 and rows.min() >= 14  # above the box


@pytest.mark.parametrize("name", ["two\nlines", "tab\tname", "nul\0", "\u202eturned"])
def test_names_that_no_line_can_show_are_drawn_as_escapes(name: str) -> None:
    drawn = [draw_marks(canvas(), [Mark((40, 30, 100, 80), each, "", (9, 9, 9))]) for each in (name, printable(name))]
    assert (drawn[0] == drawn[1]).all()


def test_detections_of_another_size_are_scaled() -> None:
    half = detections([[20, 15, 50, 40]], [0], (60, 80))
    whole = detections([[40, 30, 100, 80]], [0])
    assert (draw_detections(canvas(), half) == draw_detections(canvas(), whole)).all()


def test_line_and_letters_grow_with_the_image() -> None:
    assert (line_width((480, 640)), font_size((480, 640))) == (2, 14)
    assert (line_width((40, 40)), font_size((40, 40))) == (1, 9)
    assert line_width((3000, 4000)) == 13 and font_size((3000, 4000)) == 87


def test_ignore_regions_are_grey_and_dashed() -> None:
    truth = targets([[20, 40, 120, 100]], [True])
    mask = has(draw_targets(canvas(), truth, ["hole"], show_labels=False), IGNORED)
    top = mask[mask.any(axis=1)][0, 20:120]
    assert 0.3 < top.mean() < 0.7
    assert not has(draw_targets(canvas(), truth, ["hole"]), class_color(0)).any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (64, 3), (1, 40), (90, 70), (90, 100), (40, 2000)])
def test_a_comparison_of_any_size(height: int, width: int) -> None:
    """The two titles are of different lengths, and one of them may need a smaller font."""
    box = [(0, 0, width, height)]
    drawn = draw_comparison(canvas(height, width), targets(box, [False]), detections(box, [2]), ["a"])
    assert drawn.shape[0] == height + 2 * font_size((height, width)) and drawn.shape[1] > 2 * width


def test_comparison_puts_both_under_a_title() -> None:
    box = [[20, 20, 60, 60]]
    drawn = draw_comparison(canvas(), targets(box, [False]), detections(box, [2]), ["a"])
    height, width, _ = drawn.shape
    assert height > 120 and width > 320
    assert has(drawn[:, :160], class_color(0)).any() and has(drawn[:, -160:], class_color(2)).any()
    assert not has(drawn[:, :160], class_color(2)).any()


@pytest.mark.parametrize("image", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3), np.uint16)])
def test_not_an_image(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        draw_detections(image, detections([], []))


def test_floats_are_drawn_like_the_bytes_next_to_them() -> None:
    """Images of more than 8 bits, as the reader returns them."""
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    found, truth = detections([[20, 20, 60, 60]], [1]), targets([[20, 20, 60, 60]], [False])
    for draw, marks in ((draw_detections, found), (draw_targets, truth)):
        pixels = image + np.float32(0.3)
        assert (draw(pixels, marks) == draw(image, marks)).all() and pixels.dtype == np.float32


number = st.floats(-50, 250, width=32)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.lists(st.tuples(number, number, number, number), max_size=4),
    st.sampled_from(["hole", "", "破洞", "a name that is far too long for any image", "tab\tnew\nline"]),
)
def test_any_box_name_and_size_can_be_drawn(size: tuple[int, int], boxes: list[tuple[float, ...]], name: str) -> None:
    found = detections([list(box) for box in boxes], [k % 2 for k in range(len(boxes))], size)
    assert draw_detections(canvas(*size), found, [name]).shape == (*size, 3)


def test_boxes_that_are_not_finite_are_left_out() -> None:
    found = detections([[float("nan"), 0, 5, 5], [0, 0, float("inf"), 5]], [0, 0])
    assert (draw_detections(canvas(), found) == GREY).all()


def test_real_image(data_dir: Path) -> None:
    folder = data_dir / "deeppcb"
    truth = json.loads((folder / "annotations" / "instances_val.json").read_text())
    row = truth["images"][0]
    image = cv2.imread(str(folder / "val" / row["file_name"]))
    rows = [gt for gt in truth["annotations"] if gt["image_id"] == row["id"]]
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (gt["bbox"] for gt in rows)]
    labels = [gt["category_id"] - 1 for gt in rows]
    names = [category["name"] for category in truth["categories"]]
    drawn = draw_detections(image, detections(boxes, labels, image.shape[:2]), names)
    assert all(has(drawn, class_color(label)).any() for label in labels)
