"""Splits: every image in exactly one, groups together, shares kept, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.splits import (
    assign,
    box_counts,
    counts_table,
    every_nth,
    missing_classes,
    split_coco,
    units_of,
)
from engine.errors import InputError


@given(st.integers(1, 60), st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(0, 2**31))
def test_single_images_have_their_exact_shares(n: int, shares: list[int], seed: int) -> None:
    units = [[index] for index in range(n)]
    split = assign(units, shares, seed)
    sizes = np.bincount(split, minlength=len(shares))
    assert (np.abs(sizes - n * np.array(shares) / sum(shares)) < 1).all() and sizes.sum() == n
    assert (assign(units, shares, seed) == split).all()


@given(st.lists(st.integers(1, 5), min_size=3, max_size=30), st.integers(0, 100), st.booleans())
def test_units_stay_together(sizes: list[int], seed: int, is_stratified: bool) -> None:
    starts = np.cumsum([0, *sizes]).tolist()
    units = [list(range(*pair)) for pair in zip(starts[:-1], starts[1:], strict=True)]
    counts = np.random.default_rng(seed).integers(0, 3, (starts[-1], 4)) if is_stratified else None
    split = assign(units, (2, 1), seed, counts)
    assert all(len(set(split[unit].tolist())) == 1 for unit in units)
    assert abs((split == 1).sum() - starts[-1] / 3) <= max(sizes)


def test_rare_classes_are_in_every_split() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros((200, 3), dtype=np.int64)
    counts[:, 0] = rng.integers(0, 20, 200)  # in nearly all
    counts[:20, 1] = 1
    counts[30:35, 2] = 2
    units = [[index] for index in range(200)]
    for seed in range(5):
        split = assign(units, (0.8, 0.2), seed, counts)
        assert np.bincount(split).tolist() == [160, 40]
        in_val = counts[split == 1].sum(0)
        assert in_val[1] == 4 and in_val[2] == 2
        assert abs(in_val[0] - 0.2 * counts[:, 0].sum()) < 20
    assert (assign(units, (0.8, 0.2), 1, counts) != assign(units, (0.8, 0.2), 2, counts)).any()


def test_every_nth_of_sorted_names() -> None:
    names = ["c", "a", "e", "b", "d", "f"]
    assert every_nth(units_of(names), 3).tolist() == [1, 0, 0, 0, 0, 1]


def test_groups() -> None:
    names = ["b_1.jpg", "a_1.jpg", "b_2.jpg", "other.jpg", "a.jpg", "b_1.jpg"]
    assert units_of(names, r"^(.)_\d") == [[4], [1], [0, 5, 2], [3]]
    assert units_of(names) == [[4], [1], [0, 5], [2], [3]]  # entries of one file stay together
    assert units_of(names, r"_1|_2") == [[4], [1, 0, 5], [2], [3]]
    with pytest.raises(InputError, match="not a valid regular expression"):
        units_of(names, "(")
    with pytest.raises(InputError, match="matches no name of an image, such as 'b_1.jpg'"):
        units_of(names, "(x)")


COCO = {
    "info": {"year": 1},
    "images": [{"id": 5, "file_name": "a"}, {"id": 9, "file_name": "b"}, {"id": 11, "file_name": "c"}],
    "categories": [{"id": 3, "name": "hole"}, {"id": 1, "name": "dent"}],
    "annotations": [
        {"id": 70, "image_id": 5, "category_id": 3, "bbox": [1, 1, 1, 1], "segmentation": [[1, 2]]},
        {"id": 71, "image_id": "9", "category_id": 1, "bbox": [1, 1, 1, 1], "iscrowd": 1},
        {"id": 72, "image_id": 5, "category_id": 1, "bbox": [1, 1, 1, 1]},
    ],
}


def test_coco_rows_stay_as_they_are() -> None:
    split = np.array([0, 1, 0])
    parts = [split_coco(COCO, split, number) for number in (0, 1)]
    assert [[row["id"] for row in part["images"]] for part in parts] == [[5, 11], [9]]
    assert [part["annotations"] for part in parts] == [
        [COCO["annotations"][0], COCO["annotations"][2]],
        [COCO["annotations"][1]],
    ]
    assert all(part["info"] == COCO["info"] and part["categories"] == COCO["categories"] for part in parts)


def test_the_table_and_missing_classes() -> None:
    counts, ignored = box_counts(COCO)
    assert counts.tolist() == [[1, 1], [0, 0], [0, 0]] and ignored.tolist() == [0, 1, 0]
    split, names = np.array([0, 1, 0]), ["train", "val"]
    rows = [line.split() for line in counts_table(names, split, counts, ignored, ["hole", "dent"]).splitlines()[2:]]
    assert rows == [
        ["images", "2", "1", "3"],
        ["images", "without", "boxes", "1", "1", "2"],
        ["hole", "1", "0", "1"],
        ["dent", "1", "0", "1"],
        ["ignore", "regions", "0", "1", "1"],
    ]
    assert missing_classes(names, split, counts, ["hole", "dent"], "fold0") == [
        "fold0: no box of 'hole' in val (of 1, in 1 images)",
        "fold0: no box of 'dent' in val (of 1, in 1 images)",
    ]
