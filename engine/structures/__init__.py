"""The values that flow between the rooms: boxes, batches, targets, detections."""

from engine.structures import boxes
from engine.structures.detections import Detections
from engine.structures.image_batch import ImageBatch, padded_size
from engine.structures.pixel_convention import CONTINUOUS, INCLUSIVE, PixelConvention
from engine.structures.rows import Rows, row
from engine.structures.targets import Targets

__all__ = [
    "CONTINUOUS",
    "INCLUSIVE",
    "Detections",
    "ImageBatch",
    "PixelConvention",
    "Rows",
    "Targets",
    "boxes",
    "padded_size",
    "row",
]
