"""cfg -> the pixel convention."""

from __future__ import annotations

from yacs.config import CfgNode

from engine.structures import boxes as box_ops


def pixel_of(cfg: CfgNode) -> float:
    """Extent of the last pixel, see `structures.boxes`."""
    return box_ops.INCLUSIVE if cfg.MODEL.PIXEL_CONVENTION == "inclusive" else box_ops.CONTINUOUS
