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
        ({"INPUT.PIXEL_STD": ("a",), "SEED": "x"}, "INPUT.PIXEL_STD .*; SEED must be an int"),
    ],
)
def test_conventions_that_cannot_be_followed_name_the_weights(conventions: dict, reason: str) -> None:
    file = WeightFile({"w": torch.ones(1)}, None, None, "w.pth", "engine", conventions)
    with pytest.raises(InputError, match=f"^w.pth: its conventions cannot be followed: {reason}"):
        follow_conventions(get_cfg(), file)


@pytest.mark.parametrize(("trained_with", "configured"), [(None, 1), (4, 3), (4, 1)])
def test_weights_of_other_channels_are_told(trained_with: int | None, configured: int) -> None:
    cfg = get_cfg()
    cfg.INPUT.CHANNELS = configured
    conventions = {"INPUT.CHANNELS": trained_with} if trained_with else {}
    file = WeightFile({"w": torch.ones(1)}, None, None, "w.pth", "engine", conventions)
    words = (
        f"w.pth was trained with INPUT.CHANNELS {trained_with or 3}, but the configuration has {configured}; use the"
    )
    with pytest.raises(InputError, match=words):
        follow_conventions(cfg, file)
    cfg.INPUT.CHANNELS = trained_with or 3
    follow_conventions(cfg, file)
