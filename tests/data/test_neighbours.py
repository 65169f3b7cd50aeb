"""An order of tiles in which images are decoded seldom."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.epochs import EpochPlan, with_neighbours
from engine.data.neighbours import PORTION, Neighbours
from engine.data.samplers import TrainBatchSampler, epoch_order


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 5), st.integers(0, 99))
def test_a_permutation_in_portions(counts: list[int], at_once: int, seed: int) -> None:
    image_of = np.repeat(np.arange(len(counts)), counts)
    order = Neighbours(image_of, at_once).permutation(generator(seed))
    assert sorted(order.tolist()) == list(range(len(image_of)))
    assert (order == Neighbours(image_of, at_once).permutation(generator(seed))).all()


def decodings(order: np.ndarray, image_of: np.ndarray, kept: int) -> int:
    """How often an image is decoded if those used last are kept."""
    count, last = 0, []
    for image in image_of[order].tolist():
        count += image not in last
        last = [image, *(each for each in last if each != image)][:kept]
    return count


def test_few_decodings() -> None:
    image_of = np.repeat(np.arange(50), 6 * PORTION)
    order = Neighbours(image_of, at_once=5).permutation(generator())
    assert decodings(order, image_of, kept=5) < 1.1 * len(order) / PORTION
    assert decodings(generator().permutation(len(order)), image_of, kept=5) > 0.8 * len(order)
    # Still mixed: a batch of 8 holds tiles of several images, at random places of these.
    batches = image_of[order].reshape(-1, 8)
    assert np.mean([len(set(batch)) for batch in batches]) > 3.5
    assert np.std(order[:PORTION] % (6 * PORTION)) > 15


@pytest.mark.parametrize("share", [None, 0.25])
def test_in_the_stream(share: float | None) -> None:
    """With weights, a share of empty tiles and groups; a later start, and other processes, see the same."""
    from fractions import Fraction

    image_of = np.repeat(np.arange(8), 40)
    is_empty = np.arange(320) % 2 == 0
    plan = EpochPlan(np.where(is_empty, 1.0, 1.5), is_empty, None if share is None else Fraction(share))
    plan = with_neighbours(plan, Neighbours(image_of, 2))
    options = {"plan": plan, "groups": (np.arange(320) % 40 == 39).astype(np.int64)}
    whole = list(TrainBatchSampler(320, 8, 100, 3, **options))
    assert list(TrainBatchSampler(320, 8, 100, 3, start_iteration=90, **options)) == whole[90:]
    two = [list(TrainBatchSampler(320, 8, 100, 3, rank=rank, world_size=2, **options)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*two, strict=True)] == whole
    tiles = np.array([index for batch in whole for _, index in batch])[: plan.length]
    assert (np.bincount(tiles, minlength=320) == plan.counts(3, 0)).all()
    assert decodings(np.arange(len(tiles)), image_of[tiles], kept=3) < len(tiles) / 4


def test_each_tile_once_without_a_plan() -> None:
    neighbours = Neighbours(np.repeat(np.arange(8), 40), 2)
    plan = with_neighbours(None, neighbours)
    assert plan.length == 320
    stream = [index for batch in TrainBatchSampler(320, 8, 40, 3, plan=plan) for _, index in batch]
    assert stream == epoch_order(3, 0, 320, 8, neighbours=neighbours).tolist() and len(set(stream)) == 320
