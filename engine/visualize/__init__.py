"""Pictures of detections and ground truth, and plots. Nothing here opens a window."""

from engine.visualize.draw import draw_comparison, draw_detections, draw_targets
from engine.visualize.mosaic import mosaic

__all__ = ["draw_comparison", "draw_detections", "draw_targets", "mosaic"]
