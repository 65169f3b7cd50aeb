"""Steps that make one image of several: mosaic and mix-up.

Another image is scaled so that its short side is that of the sample's own, as if both had been resized for training.
Shapes: C channels, H W.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from engine.data.transforms.resize import scaled
from engine.data.transforms.step import AUGMENTATIONS, Scene, integer, uniform
from engine.data.transforms.windows import MEAN_FILL, common_dtype, crop, fill_value, shift, to_dtype
from engine.structures import INCLUSIVE, PixelConvention, Targets


@AUGMENTATIONS.register()
@dataclass
class Mosaic:
    """Four images around one point, each cut to its quarter of a canvas as large as the sample's own image (YOLOv4).

    An image larger than its quarter shows a window of it, drawn at random; a smaller one lies at the point.

    Args:
        center: (low, high) of where the point lies, as a share of width and of height.
        scale: (low, high) of a factor on all four images; at 1 objects keep their size.
        fill: grey level of what stays empty in 0..255, or -1 for the mean colour of the sample's own image.
        min_visibility: a box of which less remains becomes an ignore region.
        convention: what the sides of boxes mean.
    """

    center: tuple[float, float] = (0.3, 0.7)
    scale: tuple[float, float] = (0.5, 1.0)
    fill: float = MEAN_FILL
    min_visibility: float = 0.25
    convention: PixelConvention = INCLUSIVE
    needs_scene = True

    def __call__(self, image: Tensor, targets: Targets, scene: Scene) -> tuple[Tensor, Targets]:
        height, width = image.shape[-2:]
        middle_x, middle_y = round(width * uniform(*self.center)), round(height * uniform(*self.center))
        scale = uniform(*self.scale)
        order = integer(0, 3)  # the quarter of the sample's own image
        others = [scene.another() for _ in range(3)]
        others.insert(order, (image, targets))
        pixels = common_dtype([each for each, _ in others])
        canvas = fill_value(pixels[order], self.fill).expand(image.shape[0], height, width).clone()
        parts = []
        for quarter, (picture, (_, labels)) in enumerate(zip(pixels, others, strict=True)):
            is_right, is_low = quarter % 2 == 1, quarter >= 2
            sides = (height - middle_y if is_low else middle_y, width - middle_x if is_right else middle_x)
            if not all(sides):
                continue
            picture, labels = _to_short_side(picture, labels, round(min(height, width) * scale), self.convention)
            picture, labels = _cut_to(picture, labels, sides, self.min_visibility)
            x = middle_x if is_right else middle_x - picture.shape[2]
            y = middle_y if is_low else middle_y - picture.shape[1]
            canvas[:, y : y + picture.shape[1], x : x + picture.shape[2]] = picture
            parts.append(shift(labels, x, y, (height, width)))
        return canvas, Targets.cat([targets[:0], *parts])


@AUGMENTATIONS.register()
@dataclass
class MixUp:
    """The weighted mean of two images, with the boxes of both (Zhang et al., 2018; for detection, 2019).

    Where the other image does not reach, the sample's own one stays as it is.

    Args:
        share: (low, high) of the weight of the sample's own image.
        min_visibility: boxes of an image with less weight become ignore regions, as do boxes of which less remains.
        convention: what the sides of boxes mean.
    """

    share: tuple[float, float] = (0.4, 0.6)
    min_visibility: float = 0.25
    convention: PixelConvention = INCLUSIVE
    needs_scene = True

    def __call__(self, image: Tensor, targets: Targets, scene: Scene) -> tuple[Tensor, Targets]:
        height, width = image.shape[-2:]
        share = uniform(*self.share)
        other, labels = scene.another()
        other, labels = _to_short_side(other, labels, min(height, width), self.convention)
        other, labels = _cut_to(other, labels, (height, width), self.min_visibility)
        y, x = integer(0, height - other.shape[1]), integer(0, width - other.shape[2])
        image, other = common_dtype([image, other])
        image, part = image.clone(), (slice(None), slice(y, y + other.shape[1]), slice(x, x + other.shape[2]))
        image[part] = to_dtype(image[part].float() * share + other.float() * (1 - share), image.dtype)
        parts = [targets, shift(labels, x, y, (height, width))]
        weighted = [
            replace(each, ignore=each.ignore | (weight < self.min_visibility))
            for each, weight in zip(parts, (share, 1 - share), strict=True)
        ]
        return image, Targets.cat(weighted)


def _to_short_side(
    image: Tensor, targets: Targets, short_side: int, convention: PixelConvention
) -> tuple[Tensor, Targets]:
    height, width = image.shape[-2:]
    factor = max(short_side, 1) / min(height, width)
    size = max(round(height * factor), 1), max(round(width * factor), 1)
    return (image, targets) if size == (height, width) else scaled(image, targets, size, convention)


def _cut_to(image: Tensor, targets: Targets, sides: tuple[int, int], min_visibility: float) -> tuple[Tensor, Targets]:
    """A window of at most `sides` (height, width), at a drawn place."""
    size = tuple(image.shape[-2:])
    y, x = (integer(0, max(have - most, 0)) for have, most in zip(size, sides, strict=True))
    return crop(image, targets, (x, y, min(x + sides[1], size[1]), min(y + sides[0], size[0])), min_visibility)
