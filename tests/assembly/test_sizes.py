"""The sizes of images in training, which a step may set in place of `INPUT`."""

from __future__ import annotations

from typing import Any

import pytest

from engine.assembly.sizes import size_key, train_limits
from engine.config import get_cfg


@pytest.mark.parametrize(
    ("pairs", "sizes", "max_size", "key"),
    [
        ((), [800], 1333, "INPUT.MIN_SIZE_TRAIN"),
        (("INPUT.MIN_SIZE_RANGE_TRAIN", (600, 602)), [600, 601, 602], 1333, "INPUT.MIN_SIZE_RANGE_TRAIN"),
        (
            ("INPUT.AUGMENTATIONS", ["Blur", {"name": "MultiScale", "min_sizes": (320, 480), "max_size": 640}]),
            [320, 480],
            640,
            "INPUT.AUGMENTATIONS",
        ),
        (("INPUT.AUGMENTATIONS", [{"name": "MultiScale", "min_sizes": (320,)}]), [320], 1333, "INPUT.AUGMENTATIONS"),
        (
            ("INPUT.AUGMENTATIONS", [{"name": "LargeScaleJitter", "size": (640, 512)}]),
            [512],
            640,
            "INPUT.AUGMENTATIONS",
        ),
    ],
)
def test_limits(pairs: tuple[Any, ...], sizes: list[int], max_size: int, key: str) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(list(pairs))
    found, limit = train_limits(cfg)
    assert (list(found), limit, size_key(cfg)) == (sizes, max_size, key)
