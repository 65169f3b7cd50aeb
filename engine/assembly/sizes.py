"""cfg -> the sizes of images in training."""

from __future__ import annotations

from collections.abc import Sequence

from yacs.config import CfgNode

from engine.config.keys.augmentations import STEPS


def train_sizes(cfg: CfgNode) -> Sequence[int]:
    """Short sides come from MIN_SIZE_RANGE_TRAIN (both ends included) unless it starts with -1."""
    first, last = cfg.INPUT.MIN_SIZE_RANGE_TRAIN
    return cfg.INPUT.MIN_SIZE_TRAIN if first == -1 else range(first, last + 1)


def train_limits(cfg: CfgNode) -> tuple[Sequence[int], int]:
    """The short sides that images are scaled to in training, and the limit of the long side.

    They are those of `INPUT` unless a step of INPUT.AUGMENTATIONS sets the size. For LargeScaleJitter they are those
    at factor 1, the sides of its window.
    """
    limits = train_sizes(cfg), cfg.INPUT.MAX_SIZE_TRAIN
    for step in cfg.INPUT.AUGMENTATIONS:
        if step["name"] == "MultiScale":
            limits = step["min_sizes"], step.get("max_size", STEPS.arguments["MultiScale"]["max_size"].default)
        elif step["name"] == "LargeScaleJitter":
            limits = (min(step["size"]),), max(step["size"])
    return limits


def size_key(cfg: CfgNode) -> str:
    """The key that sets the short sides."""
    names = {step["name"] for step in cfg.INPUT.AUGMENTATIONS}
    if names & {"MultiScale", "LargeScaleJitter"}:
        return "INPUT.AUGMENTATIONS"
    return "INPUT.MIN_SIZE_TRAIN" if cfg.INPUT.MIN_SIZE_RANGE_TRAIN[0] == -1 else "INPUT.MIN_SIZE_RANGE_TRAIN"
