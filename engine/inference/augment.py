"""Test-time augmentation: a model looks at scaled and mirrored copies of each image, and what it found is merged.

Shapes: N images, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from engine.data.transforms import resize_pixels, resized_size
from engine.layers.nms import keep_best
from engine.layers.voting import Merged
from engine.structures import CONTINUOUS, Detections, ImageBatch, PixelConvention
from engine.structures import boxes as box_ops

Size = tuple[int, int]
"""(height, width)."""


@dataclass(frozen=True)
class View:
    """A scale at which every image is looked at.

    Attributes:
        min_size, max_size: limits of the sides in pixels, see `data.transforms.resized_size`.
        mirrored: also look at the mirrored image.
        size_range: only detections whose sqrt(area) in pixels of the scaled image lies strictly between these are kept.
    """

    min_size: int
    max_size: int
    mirrored: bool = False
    size_range: tuple[float, float] | None = None

    def in_size_range(self, detections: Detections) -> Detections:
        """Those of `detections`, which are in pixels of the scaled image, whose size is in `size_range`."""
        if self.size_range is None:
            return detections
        low, high = self.size_range
        sizes = box_ops.area(detections.boxes).sqrt()
        return detections[(sizes > low) & (sizes < high)]


def unmerged(boxes: Tensor, scores: Tensor, labels: Tensor) -> Merged:
    """A rule of merging for a single view, whose detections stay as they are."""
    return boxes, scores, labels


class AugmentedDetector(nn.Module):
    """Takes images as read and returns merged detections; takes the place of a model in a test.

    The images of a batch go through the model together, once per view. A mirrored copy shares the forward pass of its
    original, and so do views in which all images have the same sizes. Images are scaled here, on the model's device, so
    that only one scale is in memory at a time.

    Args:
        model: its `detect`, or with `suppress_first=False` its `candidates`, takes a list of normalised images; see
            `modeling.detector`.
        views: the first one is the plain pass; boxes are merged in its pixels.
        normalize: BGR image (C, H, W) in 0..255, uint8 or float32 -> the float image that the model sees.
        merge: boxes, scores, labels of all views -> of one image, highest score first; see `layers.voting`.
        max_detections: per image after merging (more where scores tie with the last one), 0 for no limit.
        suppress_first: merge the detections of each pass, not its candidates before suppression.
        convention: what the sides of boxes mean.
    """

    def __init__(
        self,
        model: nn.Module,
        views: Sequence[View],
        normalize: Callable[[Tensor], Tensor],
        merge: Callable[[Tensor, Tensor, Tensor], Merged],
        max_detections: int = 100,
        suppress_first: bool = True,
        convention: PixelConvention = CONTINUOUS,
    ) -> None:
        super().__init__()
        self.model = model
        self.views, self.normalize, self.merge = tuple(views), normalize, merge
        self.max_detections, self.suppress_first, self.convention = max_detections, suppress_first, convention
        self.train(model.training)

    def detect(self, images: ImageBatch | Sequence[Tensor]) -> list[Detections]:
        """Detections of each image in its own pixels, highest score first.

        Args:
            images: N images BGR (C, H_i, W_i) in 0..255, uint8, or float32 if their files have more than 8 bits; or a
                batch of such.
        """
        if isinstance(images, ImageBatch):
            images = images.unpadded()
        found: list[list[Detections]] = [[] for _ in images]
        for sizes, views in self._views_by_sizes(images).items():
            passes = self._detect(images, sizes, mirrored=any(view.mirrored for view in views))
            for view in views:
                for detections in passes[: 1 + view.mirrored]:
                    for of_image, detection in zip(found, detections, strict=True):
                        of_image.append(view.in_size_range(detection))
        return [self._merge(passes, image.shape[-2:]) for passes, image in zip(found, images, strict=True)]

    forward = detect  # what a model in evaluation mode does

    def _views_by_sizes(self, images: Sequence[Tensor]) -> dict[tuple[Size, ...], list[View]]:
        """The views that share a forward pass, by the sizes of the images in it; the plain one first."""
        groups: dict[tuple[Size, ...], list[View]] = {}
        for view in self.views:
            sizes = tuple(resized_size(tuple(image.shape[-2:]), view.min_size, view.max_size) for image in images)
            groups.setdefault(sizes, []).append(view)
        return groups

    def _detect(self, images: Sequence[Tensor], sizes: Sequence[Size], mirrored: bool) -> list[list[Detections]]:
        """What the model finds in the images scaled to `sizes`, and in the mirrored ones (mapped back)."""
        scaled = [self.normalize(resize_pixels(image, size)) for image, size in zip(images, sizes, strict=True)]
        if mirrored:
            scaled += [image.flip(-1) for image in scaled]
        detections = self.model.detect(scaled) if self.suppress_first else self.model.candidates(scaled)
        straight, flipped = detections[: len(images)], detections[len(images) :]
        for detection in flipped:
            detection.boxes = box_ops.flip_horizontal(detection.boxes, detection.size[1])
        return [straight, flipped]

    def _merge(self, passes: list[Detections], size: Size) -> Detections:
        frame = passes[0].size
        found = Detections.cat([passes[0], *(each.resize(frame, self.convention) for each in passes[1:])])
        boxes, scores, labels = self.merge(found.boxes, found.scores, found.labels)
        merged = Detections(boxes, scores, labels, frame)[keep_best(scores, self.max_detections)]
        return merged.resize(tuple(size), self.convention)
