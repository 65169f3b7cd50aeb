"""Conventions that weights bring along."""

from __future__ import annotations

import pytest
import torch

from engine.assembly.weights import follow_conventions
from engine.checkpoint.weights import WeightFile
from engine.config import get_cfg
from engine.errors import InputError


@pytest.mark.parametrize(
    ("conventions", "reason"),
    [
        ({"MODEL.PIXEL_CONVENTIO": "continuous"}, "unknown key MODEL.PIXEL_CONVENTIO; did you mean "),
        ({"INPUT.PIXEL_STD": (1.0,), "SEED": "x"}, "INPUT.PIXEL_STD must have 3 entries .*; SEED must be an int"),
    ],
)
def test_conventions_that_cannot_be_followed_name_the_weights(conventions: dict, reason: str) -> None:
    file = WeightFile({"w": torch.ones(1)}, None, None, "w.pth", "engine", conventions)
    with pytest.raises(InputError, match=f"^w.pth: its conventions cannot be followed: {reason}"):
        follow_conventions(get_cfg(), file)
