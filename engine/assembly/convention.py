"""cfg -> the pixel convention."""

from __future__ import annotations

from dataclasses import replace

from yacs.config import CfgNode

from engine.structures import CONTINUOUS, INCLUSIVE, PixelConvention


def build_convention(cfg: CfgNode) -> PixelConvention:
    """`MODEL.PIXEL_CONVENTION`, with the anchors of `MODEL.ANCHOR_CONVENTION` where it names some."""
    convention = INCLUSIVE if cfg.MODEL.PIXEL_CONVENTION == "inclusive" else CONTINUOUS
    return replace(convention, anchor_rule=cfg.MODEL.ANCHOR_CONVENTION or convention.anchor_rule)
