from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycocotools_mask

from engine.data.formats.segmentation import extent


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_box_of_a_mask_is_that_of_pycocotools(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    share = data.draw(st.sampled_from([0.02, 0.2, 0.6, 0.95]))
    pixels = np.random.default_rng(data.draw(st.integers(0, 10**6))).random((height, width)) < share
    encoded = pycocotools_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    flat = pixels.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(int))).tolist()
    counts = np.diff([0, *changes, flat.size]).tolist()
    expected = pycocotools_mask.toBbox(encoded).tolist() if pixels.any() else None
    assert extent({"size": [height, width], "counts": encoded["counts"].decode()}) == expected
    assert extent({"size": [height, width], "counts": counts}) == expected


@pytest.mark.parametrize(
    ("segmentation", "box"),
    [
        ([[3, 4, 8, 4, 8, 9]], [3, 4, 5, 5]),
        ([[3, 4, 8, 4, 8, 9], [1, 5, 2, 20]], [1, 4, 7, 16]),
        ([3, 4, 8, 4, 8, 9], [3, 4, 5, 5]),
        ([["3", "4.5", 8, 9]], [3, 4.5, 5, 4.5]),
        ({"size": ["3", 2.0], "counts": ["1", 2]}, [0, 1, 1, 2]),
    ],
)
def test_boxes(segmentation: Any, box: list[float]) -> None:
    assert extent(segmentation) == box


@pytest.mark.parametrize(
    "segmentation",
    [
        *(None, [], [[]], {}, "1 2 3 4", 5, True, [[1, 2, 3]], [[1, 2], 3], [[1, 2], None], [[1, float("nan")]]),
        *([["a", "b"]], [[[1, 2], [3, 4]]], [{"x": 1, "y": 2}]),
        {"size": [3, 2], "counts": [6]},
        {"size": [3, 2], "counts": [0, 7]},
        {"size": [3, 2], "counts": [-1, 2]},
        {"size": [3, 2], "counts": [1, 1.5]},
        {"size": [0, 2], "counts": [0, 1]},
        {"size": [3], "counts": [0, 1]},
        {"size": [1e300, 1e300], "counts": [0, 1e300]},
        {"size": [3, 2], "counts": None},
        {"size": [3, 2], "counts": ""},
        {"size": [3, 2], "counts": "é"},
        {"size": [3, 2], "counts": "\u0001"},
        {"size": [3, 2], "counts": "PP"},  # ends within a number, where pycocotools reads on
        {"size": [3, 2], "counts": "P" * 100},
    ],
    ids=repr,
)
def test_what_is_no_segmentation_has_no_box(segmentation: Any) -> None:
    assert extent(segmentation) is None
