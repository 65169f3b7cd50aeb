"""Detection on tiles: borders, merging, and that nothing is found twice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.data.tiles import Tiling
from engine.inference.tiled import CUT_SCORE, TiledDetector, clear_areas, select
from engine.layers.voting import nms, soft_vote
from engine.structures import Detections, ImageBatch

NMS = partial(nms, iou_thresh=0.5)
RULES = {
    "nms": NMS,
    "nms by smaller": partial(nms, iou_thresh=0.5, over_smaller=True),
    "soft-vote": partial(soft_vote, iou_thresh=0.5, score_thresh=0.001),
    "soft-vote by smaller": partial(soft_vote, iou_thresh=0.5, score_thresh=0.001, over_smaller=True),
}


class Perfect(nn.Module):
    """Finds every object of an image, also the parts of those that are cut: equal values of channel 0 are an object."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[tuple[int, int]]] = []

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        self.batches.append([tuple(image.shape[-2:]) for image in images])
        return [self.find(image) for image in images]

    def find(self, image: Tensor) -> Detections:
        boxes = []
        for value in image[0].unique().tolist():
            if value:
                rows, columns = (image[0] == value).nonzero(as_tuple=True)
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        corners = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
        return Detections(corners, torch.full((len(boxes),), 0.9), torch.zeros(len(boxes)).long(), image.shape[-2:])


def picture(size: tuple[int, int], boxes: Sequence[Sequence[int]], dtype: torch.dtype = torch.uint8) -> Tensor:
    image = torch.zeros(3, *size, dtype=dtype)
    for value, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        image[:, y1:y2, x1:x2] = value
    return image


def found_in(image: Tensor, tiling: Tiling, rule: str = "nms", **options: int) -> list[list[float]]:
    (found,) = TiledDetector(Perfect().eval(), tiling, RULES[rule], **options)([image])
    assert found.size == tuple(image.shape[-2:])
    return sorted(found.boxes.tolist())


# -- by hand --------------------------------------------------------------------------------------------------------


def test_one_object_seen_whole_twice_and_as_a_part() -> None:
    """Tiles begin at 0, 30 and 60: [35, 39] is whole in two, [24, 33] in one and cut by the second."""
    image = picture((40, 100), [[35, 5, 39, 9], [24, 20, 33, 25]])
    assert found_in(image, Tiling(40, 10)) == [[24, 20, 33, 25], [35, 5, 39, 9]]


def test_tiles_go_in_batches_and_the_whole_picture_alone() -> None:
    detector = TiledDetector(Perfect().eval(), Tiling(40, 10, keep_full=True), NMS, batch_size=2)
    detector([picture((40, 100), [])])
    assert detector.detector.batches == [[(40, 40)] * 2, [(40, 40)], [(40, 100)]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_smaller_than_a_tile_are_filled_up(dtype: torch.dtype) -> None:
    image = picture((20, 100), [[5, 5, 10, 20], [95, 2, 100, 9]], dtype)
    fill = (0.0, 0.0, 0.0)
    assert found_in(image, Tiling(40, 10), fill=fill) == [[5, 5, 10, 20], [95, 2, 100, 9]]
    assert found_in(picture((20, 30), [[1, 2, 30, 20]], dtype), Tiling(40, 10, keep_full=True), fill=fill) == [
        [1, 2, 30, 20]
    ]
    filled = TiledDetector(Perfect(), Tiling(40, 10), NMS, fill=(7.6, 7.6, 7.6))
    assert filled.detector.find(filled._tile(image, np.array([0, 0, 40, 20]))).boxes[-1].tolist() == [0, 20, 40, 40]
    assert found_in(image, Tiling(40, 10), fill=(7.6,) * 3) == [[5, 5, 10, 20], [95, 2, 100, 9]]  # and not the filling


def test_a_batch_of_images_of_different_sizes() -> None:
    images = [picture((40, 100), [[35, 5, 39, 9]]), picture((50, 60), [[50, 40, 60, 50]])]
    found = TiledDetector(Perfect().eval(), Tiling(40, 10), NMS)(ImageBatch.from_list(images, 32))
    assert [f.size for f in found] == [(40, 100), (50, 60)]
    assert [f.boxes.tolist() for f in found] == [[[35, 5, 39, 9]], [[50, 40, 60, 50]]]


def test_an_object_too_large_for_the_overlap() -> None:
    """Without the whole picture it is found in parts, which score less; with it, once."""
    image = picture((40, 100), [[10, 5, 90, 30]])
    detector = TiledDetector(Perfect().eval(), Tiling(40, 10), NMS)
    (parts,) = detector([image])
    assert sorted(parts.boxes.tolist()) == [[10, 5, 40, 30], [30, 5, 70, 30], [60, 5, 90, 30]]
    assert parts.scores.tolist() == pytest.approx([0.9 * CUT_SCORE] * 3)
    for rule in RULES:
        assert found_in(image, Tiling(40, 10, keep_full=True), rule) == [[10, 5, 90, 30]]


def test_small_objects_of_the_whole_picture_do_not_count() -> None:
    detector = TiledDetector(Perfect().eval(), Tiling(40, 10, keep_full=True), partial(nms, iou_thresh=1.0))
    (found,) = detector([picture((40, 100), [[2, 2, 8, 8]])])
    assert len(found) == 1


def rows(*found: tuple[list[float], float, int, int]) -> tuple[Detections, Tensor]:
    """(box, score, label, view)"""
    boxes, scores, labels, numbers = zip(*found, strict=True)
    detections = Detections(torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), (40, 100))
    return detections, torch.tensor(numbers)


TILING = Tiling(40, 16)  # a margin of 0.4
VIEWS = np.array([[0, 0, 40, 40], [24, 0, 64, 40], [60, 0, 100, 40]])


@pytest.mark.parametrize(
    ("found", "kept"),
    [
        ([([30.0, 1, 39, 9], 0.9, 0, 0)], [0.9]),  # clear of the border
        ([([30.0, 1, 39.7, 9], 0.9, 0, 0)], []),  # the next tile sees more
        ([([0.0, 0, 9, 40], 0.9, 0, 0)], [0.9]),  # at borders of the image
        ([([10.0, 1, 40, 9], 0.9, 0, 0)], [0.45]),  # no tile shows all of it
        ([([58.0, 1, 63.9, 9], 0.8, 0, 1)], [0.4]),  # the next tile cuts it, too
        ([([10.0, 1, 40, 9], 0.9, 0, 0), ([9.0, 1, 39, 9], 0.5, 0, 0)], [0.5]),  # covered by a better one
        ([([10.0, 1, 40, 9], 0.9, 0, 0), ([9.0, 1, 39, 9], 0.4, 0, 0)], [0.45, 0.4]),  # by a worse one
        ([([10.0, 1, 40, 9], 0.9, 0, 0), ([9.0, 1, 39, 9], 0.5, 1, 0)], [0.5, 0.45]),  # by one of another class
        ([([70.0, 41, 79, 49], 0.9, 0, 2)], []),  # in what the tile was filled up with
    ],
)
def test_cut_detections(found: list[tuple[list[float], float, int, int]], kept: list[float]) -> None:
    scores = select(*rows(*found), VIEWS, TILING).scores
    assert sorted(scores.tolist(), reverse=True) == pytest.approx(kept)


def test_clear_areas_of_inner_tiles() -> None:
    assert clear_areas(VIEWS[1:2], (50, 100), 2.0).tolist() == [[26.0, -np.inf, 62.0, 38.0]]


# -- a perfect detector ---------------------------------------------------------------------------------------------


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], list[list[int]], Tiling]:
    """An image with objects that do not touch, and how it is cut."""
    size = draw(st.integers(32, 60))
    tiling = Tiling(size, draw(st.integers(0, size // 2)), keep_full=draw(st.booleans()))
    height, width = draw(st.integers(20, 140)), draw(st.integers(20, 140))
    most = max(height, width) if tiling.keep_full else int(tiling.reach)
    taken, boxes = np.zeros((height, width), bool), []
    for _ in range(draw(st.integers(0, 6)) if most else 0):
        w, h = (draw(st.integers(1, min(most, side))) for side in (width, height))
        x, y = draw(st.integers(0, width - w)), draw(st.integers(0, height - h))
        if not taken[max(y - 1, 0) : y + h + 1, max(x - 1, 0) : x + w + 1].any():
            taken[y : y + h, x : x + w] = True
            boxes.append([x, y, x + w, y + h])
    return (height, width), boxes, tiling


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(scenes(), st.sampled_from(sorted(RULES)))
def test_the_truth_is_found_exactly_once(scene: tuple[tuple[int, int], list[list[int]], Tiling], rule: str) -> None:
    size, boxes, tiling = scene
    assert found_in(picture(size, boxes), tiling, rule) == sorted(boxes)


def test_thousands_of_objects() -> None:
    """More pairs than are compared at once."""
    boxes = [[x, y, x + 3, y + 3] for x in range(1, 800, 5) for y in range(1, 120, 5)]
    image = picture((120, 800), boxes, torch.float32)
    assert len(boxes) > 3000
    assert found_in(image, Tiling(100, 20), "nms by smaller") == sorted(boxes)
