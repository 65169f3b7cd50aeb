"""Steps that cut, widen or cover an image. What becomes of boxes is in `windows`.

Shapes: M boxes, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torchvision.ops import box_iou

from engine.data.transforms.step import AUGMENTATIONS, integer, uniform
from engine.data.transforms.windows import MEAN_FILL, Window, crop, fill_value, hide, shift
from engine.structures import Targets
from engine.structures import boxes as box_ops

_LARGEST_RATIO = 2.0
"""Between the sides of an IoU crop relative to the image, as in SSD."""


@AUGMENTATIONS.register()
@dataclass
class Expand:
    """Lay the image at random onto a larger canvas ("zoom out" of SSD, Liu et al., 2016).

    Args:
        ratio: (low, high) of the canvas's sides, relative to those of the image; both are 1 or more.
        fill: grey level of the canvas in 0..255, or -1 for the mean colour of the image.
    """

    ratio: tuple[float, float] = (1.0, 4.0)
    fill: float = MEAN_FILL

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        ratio = uniform(*self.ratio)
        channels, height, width = image.shape
        size = max(round(height * ratio), height), max(round(width * ratio), width)
        y, x = integer(0, size[0] - height), integer(0, size[1] - width)
        canvas = fill_value(image, self.fill).expand(channels, *size).clone()
        canvas[:, y : y + height, x : x + width] = image
        return canvas, shift(targets, x, y, size)


@AUGMENTATIONS.register()
@dataclass
class RandomCrop:
    """A window at random.

    Args:
        scale: (low, high) of the window's sides relative to the image's, drawn for each side.
        size: (height, width) in pixels instead; sides that the image lacks stay as long as they are. () for off.
        min_visibility: a box of which less remains becomes an ignore region.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    size: Sequence[int] = ()
    min_visibility: float = 0.25

    def __post_init__(self) -> None:
        if len(self.size) not in (0, 2):
            raise ValueError(f"size must be (height, width), got {tuple(self.size)}")

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        sides = tuple(image.shape[-2:])
        wanted = self.size or [round(side * uniform(*self.scale)) for side in sides]
        return crop(image, targets, _window(sides, wanted), self.min_visibility)


@AUGMENTATIONS.register()
@dataclass
class IoUCrop:
    """A window that overlaps some box by a drawn IoU at least (SSD, Liu et al., 2016).

    If no window of `num_tries` does, the image stays whole; an image without boxes is cut anywhere. The IoU is that of
    a box with the whole window: with small boxes only `min_ious` near 0 can be met.

    Args:
        min_ious: IoUs to draw from; 1 stands for the whole image.
        scale: (low, high) of the window's sides relative to the image's.
        num_tries: windows to try.
        min_visibility: a box of which less remains becomes an ignore region.
    """

    min_ious: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    scale: tuple[float, float] = (0.3, 1.0)
    num_tries: int = 40
    min_visibility: float = 0.25

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        min_iou = self.min_ious[integer(0, len(self.min_ious) - 1)]
        if min_iou >= 1:
            return image, targets
        boxes = targets.boxes[~targets.ignore]  # (M, 4)
        for _ in range(self.num_tries):
            shares = uniform(*self.scale), uniform(*self.scale)
            if max(shares) > _LARGEST_RATIO * min(shares):
                continue
            sides = tuple(image.shape[-2:])
            window = _window(sides, [round(side * share) for side, share in zip(sides, shares, strict=True)])
            if not len(boxes) or self._is_met(boxes, window, min_iou):
                return crop(image, targets, window, self.min_visibility)
        return image, targets

    @staticmethod
    def _is_met(boxes: Tensor, window: Window, min_iou: float) -> bool:
        around = boxes.new_tensor(window)
        centers = box_ops.centers(boxes)
        is_inside = ((centers > around[:2]) & (centers < around[2:])).all(dim=1)  # (M,)
        return bool(is_inside.any() and box_iou(boxes[is_inside], around[None]).max() >= min_iou)


@AUGMENTATIONS.register()
@dataclass
class Cutout:
    """Cover rectangles with one colour (DeVries and Taylor, 2017; "random erasing").

    Args:
        num_holes: (low, high) of the number of rectangles.
        scale: (low, high) of their sides relative to the image's.
        fill: grey level in 0..255, or -1 for the mean colour of the image.
        min_visibility: a box of which less remains to be seen becomes an ignore region.
    """

    num_holes: tuple[int, int] = (1, 3)
    scale: tuple[float, float] = (0.05, 0.2)
    fill: float = MEAN_FILL
    min_visibility: float = 0.25

    def __call__(self, image: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        sides = tuple(image.shape[-2:])
        value, image = fill_value(image, self.fill), image.clone()
        holes = []
        for _ in range(integer(*self.num_holes)):
            hole = _window(sides, [round(side * uniform(*self.scale)) for side in sides])
            image[:, hole[1] : hole[3], hole[0] : hole[2]] = value
            holes.append(hole)
        return image, hide(targets, holes, self.min_visibility)


def _window(sides: Sequence[int], wanted: Sequence[int]) -> Window:
    """A window of the `wanted` (height, width), as far as an image with those `sides` has it, at a drawn place."""
    height, width = (min(max(want, 1), side) for want, side in zip(wanted, sides, strict=True))
    y, x = integer(0, sides[0] - height), integer(0, sides[1] - width)
    return x, y, x + width, y + height
