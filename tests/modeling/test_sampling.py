from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.modeling.assign import IGNORED, NEGATIVE
from engine.modeling.two_stage.sampling import SAMPLERS, Pool, Sampling, draw_seed, generator_of

NAMES = ["random", "ohem", "balanced"]


def candidates(matched: list[int], ious: list[float] | None = None, losses: list[float] | None = None, seed: int = 0):
    values = torch.tensor(losses or [0.5] * len(matched))
    return Pool(
        torch.tensor(matched),
        torch.tensor(ious or [0.0] * len(matched)),
        lambda idx: values[idx],
        generator_of(seed, "a", torch.device("cpu")),
    )


matches = st.lists(st.sampled_from([IGNORED, NEGATIVE, NEGATIVE, 0, 1, 2]), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(matches, st.sampled_from(NAMES), st.integers(1, 20), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 5))
def test_counts(matched: list[int], name: str, num: int, fraction: float, seed: int) -> None:
    given = candidates(matched, [0.1 * (i % 10) for i in range(len(matched))], seed=seed)
    chosen = Sampling(num, fraction, SAMPLERS.get(name))(given).tolist()
    assert len(set(chosen)) == len(chosen)
    positives = sum(m >= 0 for m in matched)
    num_positive = min(positives, int(num * fraction))
    kinds = [matched[i] for i in chosen]
    assert sum(m >= 0 for m in kinds) == num_positive
    assert sum(m == NEGATIVE for m in kinds) == min(matched.count(NEGATIVE), num - num_positive)
    assert IGNORED not in kinds


def test_ohem_takes_the_largest_losses() -> None:
    given = candidates([0, 1, NEGATIVE, NEGATIVE, NEGATIVE, IGNORED], losses=[0.1, 0.9, 0.3, 0.8, 0.5, 9.0])
    assert sorted(Sampling(3, 0.34, SAMPLERS.get("ohem"))(given).tolist()) == [1, 3, 4]


def test_ohem_computes_no_loss_where_nothing_is_chosen() -> None:
    def never(idx: torch.Tensor) -> torch.Tensor:
        raise AssertionError("not needed")

    given = Pool(torch.tensor([0, NEGATIVE]), torch.zeros(2), never, torch.Generator())
    assert Sampling(8, 0.5, SAMPLERS.get("ohem"))(given).tolist() == [0, 1]


def test_balanced_shares_among_boxes() -> None:
    matched = [0] * 90 + [1] * 9 + [2]
    chosen = Sampling(13, 1.0, SAMPLERS.get("balanced"))(candidates(matched))
    assert torch.tensor(matched)[chosen].bincount().tolist() == [6, 6, 1]


def test_balanced_shares_among_ranges_of_iou() -> None:
    ious = [0.01] * 90 + [0.15] * 9 + [0.3] * 9
    chosen = Sampling(12, 0.0, SAMPLERS.get("balanced"))(candidates([NEGATIVE] * len(ious), ious))
    assert [(torch.tensor(ious)[chosen] == iou).sum().item() for iou in (0.01, 0.15, 0.3)] == [4, 4, 4]


@pytest.mark.parametrize("name", ["random", "balanced"])
def test_chance_is_the_image_and_the_step(name: str) -> None:
    matched = [NEGATIVE] * 1000
    sampling = Sampling(50, 0.5, SAMPLERS.get(name))
    draws = [sampling(candidates(matched, seed=seed)).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_random_is_even() -> None:
    sampling = Sampling(10, 0.5, SAMPLERS.get("random"))
    counts = sum(sampling(candidates([NEGATIVE] * 40, seed=seed)).bincount(minlength=40) for seed in range(400))
    assert counts.sum() == 4000 and counts.min() > 60 and counts.max() < 145


def test_seeds_follow_torch() -> None:
    torch.manual_seed(3)
    first = [draw_seed(), draw_seed()]
    torch.manual_seed(3)
    assert [draw_seed(), draw_seed()] == first and first[0] != first[1]
