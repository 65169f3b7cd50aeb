"""Boxes as annotation files write them: those of `engine.data.exact_boxes`, which needs nothing of this package."""

from engine.data.exact_boxes import Box, from_relative, to_corners, to_relative, to_xywh, written

__all__ = ["Box", "from_relative", "to_corners", "to_relative", "to_xywh", "written"]
