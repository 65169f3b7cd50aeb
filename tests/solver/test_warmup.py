from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.solver.warmup import WARMUPS, Warmup

TABLE = {
    "constant": [0.25, 0.25, 0.25, 0.25, 1, 1],
    "linear": [0.25, 0.4375, 0.625, 0.8125, 1, 1],
    "exponential": [0.25, 0.353553, 0.5, 0.707107, 1, 1],
}


@pytest.mark.parametrize("name", TABLE)
def test_table(name: str) -> None:
    warmup = Warmup(4, 0.25, WARMUPS.get(name))
    assert [warmup(iteration) for iteration in range(6)] == pytest.approx(TABLE[name], abs=1e-6)


def test_no_warmup() -> None:
    assert Warmup()(0) == 1


@given(st.sampled_from(["linear", "exponential"]), st.integers(1, 100), st.floats(1e-6, 1))
def test_rises_from_the_factor_to_one(name: str, num_iters: int, factor: float) -> None:
    warmup = Warmup(num_iters, factor, WARMUPS.get(name))
    factors = [warmup(iteration) for iteration in range(num_iters + 1)]
    assert factors[0] == pytest.approx(factor) and factors[-1] == 1
    assert all(first <= second + 1e-12 for first, second in zip(factors, factors[1:], strict=False))
