"""`engine.assembly.training`: what no run of a whole training covers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.assembly.training import explaining_single_values
from engine.errors import InputError


def test_a_batch_norm_with_a_single_value_is_one_line() -> None:
    norm = nn.BatchNorm2d(2)
    said = pytest.raises(InputError, match=r"a single value per channel: .*raise SOLVER.IMS_PER_BATCH or INPUT")
    with said, explaining_single_values():
        norm(torch.zeros(1, 2, 1, 1))
    with pytest.raises(ValueError, match="expected 4D input"), explaining_single_values():
        norm(torch.zeros(2))
    with explaining_single_values():
        norm(torch.zeros(2, 2, 1, 1))
