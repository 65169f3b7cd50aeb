"""The values that flow between the rooms: boxes, batches, targets, detections."""

from engine.structures import boxes
from engine.structures.detections import Detections
from engine.structures.image_batch import ImageBatch, padded_size
from engine.structures.targets import Targets

__all__ = ["Detections", "ImageBatch", "Targets", "boxes", "padded_size"]
