from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.samplers import TestBatchSampler as RankBatches
from engine.data.samplers import TrainBatchSampler, aspect_groups, epoch_order
from engine.errors import InputError


@st.composite
def streams(draw: st.DrawFn) -> dict:
    num_images = draw(st.integers(1, 40))
    groups = draw(st.none() | st.lists(st.integers(0, 1), min_size=num_images, max_size=num_images))
    return {
        "num_images": num_images,
        "batch_size": draw(st.sampled_from([1, 2, 4, 6, 12])),
        "max_iter": draw(st.integers(0, 25)),
        "seed": draw(st.integers(0, 5)),
        "groups": None if groups is None else np.array(groups),
    }


def test_aspect_groups() -> None:
    assert aspect_groups(np.array([[10, 20], [20, 10], [10, 10], [0, 0]])).tolist() == [1, 0, 1, 1]


@settings(deadline=None)
@given(streams())
def test_every_epoch_visits_each_image_once(stream: dict) -> None:
    batches = list(TrainBatchSampler(**stream))
    assert len(batches) == stream["max_iter"] == len(TrainBatchSampler(**stream))
    keys = [key for batch in batches for key in batch]
    assert [position for position, _ in keys] == list(range(len(keys)))
    n = stream["num_images"]
    for start in range(0, len(keys), n):
        epoch = [index for _, index in keys[start : start + n]]
        assert len(set(epoch)) == len(epoch)
        if len(epoch) == n:
            assert sorted(epoch) == list(range(n))


@settings(deadline=None)
@given(streams(), st.sampled_from([1, 2, 3, 4]), st.integers(0, 25))
def test_ranks_partition_and_resuming_changes_nothing(stream: dict, world_size: int, start: int) -> None:
    whole = list(TrainBatchSampler(**stream))
    if stream["batch_size"] % world_size:
        with pytest.raises(InputError, match="IMS_PER_BATCH"):
            TrainBatchSampler(**stream, world_size=world_size)
        return
    shares = [
        list(TrainBatchSampler(**stream, start_iteration=start, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    joined = [sum(parts, []) for parts in zip(*shares, strict=True)]
    assert joined == whole[start:]


@settings(deadline=None)
@given(streams())
def test_few_batches_are_mixed(stream: dict) -> None:
    groups, size, n = stream["groups"], stream["batch_size"], stream["num_images"]
    if groups is None:
        return
    for number, batch in enumerate(TrainBatchSampler(**stream)):
        first, last = number * size, number * size + size - 1
        straddles = first // n != last // n or last % n == n - 1
        # What an epoch leaves over, less than a batch of either group, is its last two batches.
        near_end = n - first % n <= 2 * (size - 1)
        if not straddles and not near_end:
            assert len({int(groups[index]) for _, index in batch}) == 1


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(epoch_order(seed, epoch, 20)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_groups_come_in_the_order_of_the_permutation() -> None:
    groups = np.array([0, 1] * 50)
    order = epoch_order(0, 0, 100, 10, groups).reshape(10, 10)
    kinds = groups[order]
    assert (kinds == kinds[:, :1]).all()
    assert len(set(kinds[:5, 0])) == 2  # not one group after the other


def test_no_images() -> None:
    with pytest.raises(InputError, match="FILTER_EMPTY"):
        TrainBatchSampler(0, 4, 10, 0)


@given(st.integers(0, 30), st.integers(1, 5), st.integers(1, 6))
def test_test_ranks_share_all_images_in_order(num_images: int, batch_size: int, world_size: int) -> None:
    samplers = [RankBatches(num_images, batch_size, r, world_size) for r in range(world_size)]
    batches = [list(sampler) for sampler in samplers]
    flat = [index for share in batches for batch in share for index in batch]
    assert flat == list(range(num_images))
    assert [len(sampler) for sampler in samplers] == [len(share) for share in batches]
    assert all(len(batch) == batch_size for share in batches for batch in share[:-1])
