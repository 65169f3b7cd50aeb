"""Random choices as a function of a key, so that they do not depend on worker processes, ranks or the past."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_state(*key: int) -> Iterator[None]:
    """Seed torch's CPU generator with `key` (integers >= 0) inside the block, and restore its state afterwards."""
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(int(seed))
        yield
