"""Epochs in which images repeat and images without boxes have a share."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.dataset import ConcatDataset, LabelledImages
from engine.data.epochs import EpochPlan, plan_epochs
from engine.data.samplers import TrainBatchSampler
from tests.conftest import WriteCoco
from tests.data.conftest import annotation, open_coco

SHARES = [None, Fraction(0), Fraction(1, 10), Fraction(1, 4), Fraction(1, 3), Fraction(1, 2), Fraction(3, 4)]


@st.composite
def plans(draw: st.DrawFn) -> EpochPlan:
    num_images = draw(st.integers(2, 25))
    weights = draw(st.lists(st.sampled_from([1.0, 1.0, 2.0, 0.5, 1.3, 3.75]), min_size=num_images, max_size=num_images))
    is_empty = draw(st.lists(st.booleans(), min_size=num_images - 2, max_size=num_images - 2))
    return EpochPlan(np.array(weights), np.array([False, True, *is_empty]), draw(st.sampled_from(SHARES)))


@st.composite
def streams(draw: st.DrawFn) -> dict:
    plan = draw(plans())
    num_images = len(plan.weights)
    groups = draw(st.none() | st.lists(st.integers(0, 1), min_size=num_images, max_size=num_images))
    return {
        "num_images": num_images,
        "batch_size": draw(st.sampled_from([1, 2, 4, 6, 12])),
        "max_iter": draw(st.integers(0, 25)),
        "seed": draw(st.integers(0, 5)),
        "groups": None if groups is None else np.array(groups),
        "plan": plan,
    }


def images_of(stream: dict, **options: int) -> list[list[int]]:
    return [[index for _, index in batch] for batch in TrainBatchSampler(**stream, **options)]


@settings(deadline=None)
@given(streams())
def test_an_epoch_holds_what_was_counted(stream: dict) -> None:
    plan, seed = stream["plan"], stream["seed"]
    images = sum(images_of(stream), [])
    assert TrainBatchSampler(**stream).epoch_length == plan.length
    for epoch, start in enumerate(range(0, len(images), plan.length)):
        counts = plan.counts(seed, epoch)
        assert counts.sum() == plan.length
        seen = np.bincount(images[start : start + plan.length], minlength=len(counts))
        if start + plan.length <= len(images):
            assert (seen == counts).all()
        else:
            assert (seen <= counts).all()


@settings(deadline=None)
@given(plans(), st.integers(0, 50))
def test_counts_are_the_weights_rounded_up_or_down(plan: EpochPlan, epoch: int) -> None:
    counts, full = plan.counts(7, epoch), ~plan.is_empty
    for images in (full,) if plan.empty_share is not None else (np.ones_like(full),):
        scaled = plan.weights[images] * counts[images].sum() / plan.weights[images].sum()
        assert (np.abs(counts[images] - scaled) < 1 + 1e-9).all()
        assert (counts[images] >= np.floor(plan.weights[images])).all()
        assert (scaled >= plan.weights[images] - 1e-9).all()


def test_weights_are_met_on_average() -> None:
    weights = np.array([1.0, 1.2, 0.25, 2.5, 1.0, 3.05])
    plan = EpochPlan(weights, np.zeros(6, dtype=bool))
    assert plan.length == 9  # the sum is exactly 9: nothing is scaled
    mean = np.mean([plan.counts(0, epoch) for epoch in range(4000)], axis=0)
    assert np.abs(mean - weights).max() < 0.03


@settings(deadline=None)
@given(streams())
def test_every_batch_has_the_share(stream: dict) -> None:
    plan, size = stream["plan"], stream["batch_size"]
    if plan.empty_share is None:
        return
    total = 0
    for number, batch in enumerate(images_of(stream), start=1):
        count = int(plan.is_empty[batch].sum())
        assert count in (int(size * plan.empty_share), -int(-size * plan.empty_share // 1))
        total += count
        assert total == int(number * size * plan.empty_share)


@settings(deadline=None)
@given(streams(), st.sampled_from([1, 2, 3, 4]), st.integers(0, 25))
def test_ranks_partition_and_resuming_changes_nothing(stream: dict, world_size: int, start: int) -> None:
    if stream["batch_size"] % world_size:
        return
    whole = list(TrainBatchSampler(**stream))
    shares = [
        list(TrainBatchSampler(**stream, start_iteration=start, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert [sum(parts, []) for parts in zip(*shares, strict=True)] == whole[start:]


@pytest.mark.parametrize("share", [None, Fraction(1, 4)])
def test_groups_stay_together(share: Fraction | None) -> None:
    random = np.random.default_rng(0)
    groups, is_empty = random.integers(0, 2, 400), random.random(400) < 0.4
    plan = EpochPlan(random.uniform(1, 2, 400), is_empty, share)
    batches = images_of(
        {"num_images": 400, "batch_size": 8, "max_iter": 200, "seed": 1, "groups": groups, "plan": plan}
    )
    mixed = [len(set(groups[batch])) > 1 for batch in batches]
    epochs = 200 * 8 / plan.length
    assert sum(mixed) <= 3 * (epochs + 1)
    kinds = [int(groups[batch][0]) for batch in batches[:20]]
    assert 3 < sum(kinds) < 17  # not one group after the other


def test_the_share_goes_before_the_groups() -> None:
    groups = np.array([0] * 12 + [1] * 12)  # all images without boxes are of the other group
    plan = EpochPlan(np.ones(24), groups == 1, Fraction(1, 2))
    batches = images_of({"num_images": 24, "batch_size": 4, "max_iter": 12, "seed": 0, "groups": groups, "plan": plan})
    assert all(sum(groups[batch]) == 2 for batch in batches)


# ---------------------------------------------------------------- the plan of a data set


@pytest.fixture
def parts(write_coco: WriteCoco) -> LabelledImages:
    """Ten images: scratches on 0..5, a hole on 0 as well, nothing on the others."""
    rows = [annotation(index, 3) for index in range(6)] + [annotation(0, 7), annotation(9, 7, iscrowd=1)]
    return open_coco(write_coco([(index, 20, 20) for index in range(10)], rows))


def test_nothing_asked_for_is_no_plan(parts: LabelledImages) -> None:
    assert plan_epochs(parts) is None
    assert plan_epochs(parts, repeat_threshold=0.05) is None  # no class is so rare


def test_a_repeated_data_set(parts: LabelledImages, write_coco: WriteCoco, said: pytest.LogCaptureFixture) -> None:
    other = open_coco(write_coco([(1, 20, 20), (2, 20, 20)], [annotation(1, 3)], name="other"))
    other.repeat = 3.0
    plan = plan_epochs(ConcatDataset([parts, other]))
    assert plan.length == 16 and plan.counts(0, 0).tolist() == [1] * 10 + [3, 3]
    assert "an epoch has 16 images, drawn from 12, 5 without boxes" in said.text
    other.repeat = 0.5
    halves = plan_epochs(ConcatDataset([parts, other]))
    assert halves.length == 11
    assert {tuple(halves.counts(0, epoch)[10:].tolist()) for epoch in range(99)} == {(0, 1), (1, 0)}


def test_rare_classes_are_repeated(parts: LabelledImages, said: pytest.LogCaptureFixture) -> None:
    plan = plan_epochs(parts, repeat_threshold=0.4)  # holes on one image of ten, scratches on six
    assert plan.weights.tolist() == [2.0] + [1.0] * 9 and plan.length == 11
    assert "DATALOADER.REPEAT_THRESHOLD 0.4: images are repeated for hole 2 times" in said.text
    parts.repeat = 1.5
    assert plan_epochs(parts, repeat_threshold=0.4).weights.tolist() == [3.0] + [1.5] * 9


def test_a_share_of_images_without_boxes(parts: LabelledImages, said: pytest.LogCaptureFixture) -> None:
    plan = plan_epochs(parts, empty_share=0.25)
    assert plan.empty_share == Fraction(1, 4) and plan.length == 8
    counts = plan.counts(0, 0)
    assert counts[:6].tolist() == [1] * 6 and counts[6:].sum() == 2
    assert "4 without boxes, their share 0.25" in said.text
    none = plan_epochs(parts, empty_share=0.0)
    assert none.length == 6 and none.counts(0, 0).tolist() == [1] * 6 + [0] * 4
    most = plan_epochs(parts, empty_share=0.9)
    assert most.length == 60 and most.counts(0, 0)[6:].sum() == 54


@pytest.mark.parametrize(
    ("boxes", "line"), [(True, "all training images have boxes"), (False, "no training image has")]
)
def test_only_one_kind_of_images(write_coco: WriteCoco, said: pytest.LogCaptureFixture, boxes: bool, line: str) -> None:
    rows = [annotation(1, 3), annotation(2, 3)] if boxes else []
    dataset = open_coco(write_coco([(1, 20, 20), (2, 20, 20)], rows))
    assert plan_epochs(dataset, empty_share=0.5) is None
    assert f"DATALOADER.EMPTY_SHARE 0.5: {line}" in said.text
    if boxes:
        said.clear()
        assert plan_epochs(dataset, empty_share=0.0) is None and "changes nothing" not in said.text
