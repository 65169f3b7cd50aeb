"""Objects of other images pasted into an image (Dwibedi et al., 2017; Ghiasi et al., 2021), by their boxes.

Shapes: M boxes, C channels, H W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.data.transforms.resize import scaled
from engine.data.transforms.step import AUGMENTATIONS, Scene, integer, uniform
from engine.data.transforms.windows import Window, common_dtype, crop_targets, hide, shift, to_dtype
from engine.errors import listed, shown
from engine.spelling import did_you_mean
from engine.structures import INCLUSIVE, PixelConvention, Targets
from engine.structures import boxes as box_ops

_PLACES = 20
"""Places that are tried for an object before it is left out."""


@dataclass
class Patch:
    """An object to paste with what surrounds it.

    Attributes:
        pixels: (C, h, w), the box in whole pixels and up to `feather` pixels around it.
        targets: in pixels of `pixels`: the object, and what else is to be seen inside its box.
        core: the box in whole pixels, in pixels of `pixels`.
    """

    pixels: Tensor
    targets: Targets
    core: Window


@AUGMENTATIONS.register()
@dataclass
class CopyPaste:
    """Paste objects of other images, scaled and mirrored at random, at places drawn at random.

    Only boxes are known, so a rectangle is pasted: the box, and around it a seam in which the object's surroundings
    fade into the image. Ignore regions are never pasted as objects. A place where box and seam would cover more of a
    box or ignore region than `max_overlap` is not taken; what a paste does cover is treated as in a cut.

    Args:
        num_objects: (low, high) of the number of objects.
        only_empty: paste only into images without boxes.
        classes: names of the classes to paste; () for all.
        scale: (low, high) of a factor on their size.
        feather: width of the seam, pixels; 0 pastes plain rectangles.
        max_overlap: largest part of the smaller of two boxes that may lie in the other, seams counted.
        flip: mirror objects left to right and top to bottom, each with probability 0.5.
        min_visibility: a box of which less remains becomes an ignore region.
        convention: what the sides of boxes mean.
        class_names: label k is class_names[k].

    Raises:
        ValueError: one of `classes` is not among `class_names`.
    """

    num_objects: tuple[int, int] = (1, 3)
    only_empty: bool = False
    classes: Sequence[str] = ()
    scale: tuple[float, float] = (0.8, 1.25)
    feather: int = 4
    max_overlap: float = 0.0
    flip: bool = True
    min_visibility: float = 0.25
    convention: PixelConvention = INCLUSIVE
    class_names: Sequence[str] = ()
    needs_scene = True

    def __post_init__(self) -> None:
        for name in self.classes:
            if name not in self.class_names:
                known = did_you_mean(name, self.class_names) or f"; the classes are {listed(self.class_names)}"
                raise ValueError(f"there is no class {shown(name)}{known}")
        self._labels = torch.tensor([self.class_names.index(name) for name in self.classes], dtype=torch.int64)

    def __call__(self, image: Tensor, targets: Targets, scene: Scene) -> tuple[Tensor, Targets]:
        if self.only_empty and not bool(targets.ignore.all()):
            return image, targets
        is_copy = False
        for _ in range(integer(*self.num_objects)):
            patch = self._patch(scene)
            place = self._place(patch, targets) if patch else None
            if place is None:
                continue
            image, pixels = common_dtype([image, patch.pixels])
            image, is_copy = image if is_copy else image.clone(), True
            self._paste(image, pixels, patch.core, place)
            left, top = place
            core = (left + patch.core[0], top + patch.core[1], left + patch.core[2], top + patch.core[3])
            whole = (0, 0, targets.size[1], targets.size[0])
            pasted = crop_targets(shift(patch.targets, left, top, targets.size), whole, min_visibility=0.0)
            targets = Targets.cat([hide(targets, [core], self.min_visibility), pasted])
        return image, targets

    def _patch(self, scene: Scene) -> Patch | None:
        """An object of another image; None if none is found."""
        found = scene.another_with_boxes(self._labels.tolist())
        if found is None:
            return None
        image, targets = found
        is_wanted = ~targets.ignore
        if len(self._labels):
            is_wanted &= torch.isin(targets.labels, self._labels)
        rows = is_wanted.nonzero()[:, 0].tolist()
        if not rows:
            return None
        row = rows[integer(0, len(rows) - 1)]
        core = whole_window(targets.boxes[row], targets.size)
        height, width = targets.size
        outer = (
            max(core[0] - self.feather, 0),
            max(core[1] - self.feather, 0),
            min(core[2] + self.feather, width),
            min(core[3] + self.feather, height),
        )
        # The object itself is wholly visible, since its window contains it.
        labels = shift(crop_targets(targets, core, self.min_visibility), core[0] - outer[0], core[1] - outer[1], (0, 0))
        pixels = image[:, outer[1] : outer[3], outer[0] : outer[2]]
        inner = (core[0] - outer[0], core[1] - outer[1], core[2] - outer[0], core[3] - outer[1])
        return self._changed(Patch(pixels, replace(labels, size=tuple(pixels.shape[-2:])), inner))

    def _changed(self, patch: Patch) -> Patch:
        """The patch scaled and mirrored."""
        factor, pixels, targets = uniform(*self.scale), patch.pixels, patch.targets
        size = tuple(max(round(side * factor), 1) for side in pixels.shape[-2:])
        x_ratio, y_ratio = size[1] / pixels.shape[2], size[0] / pixels.shape[1]
        core = torch.tensor(patch.core) * torch.tensor([x_ratio, y_ratio, x_ratio, y_ratio])
        if size != tuple(pixels.shape[-2:]):
            pixels, targets = scaled(pixels, targets, size, self.convention)
        for axis, mirror in ((2, box_ops.flip_horizontal), (1, box_ops.flip_vertical)):
            if self.flip and torch.rand(()) < 0.5:
                pixels = pixels.flip(axis)
                targets = replace(targets, boxes=mirror(targets.boxes, pixels.shape[axis]))
                core = mirror(core[None], pixels.shape[axis])[0]
        return Patch(pixels, targets, whole_window(core, size))

    def _place(self, patch: Patch, targets: Targets) -> tuple[int, int] | None:
        """Where the patch's left upper corner comes to lie, as (x, y); None if the image has no room for it.

        The box lies inside the image; its seam may reach beyond the border, but not over other boxes either.
        """
        x1, y1, x2, y2 = patch.core
        height, width = targets.size
        if x2 - x1 > width or y2 - y1 > height:
            return None
        for _ in range(_PLACES):
            x, y = integer(0, width - (x2 - x1)), integer(0, height - (y2 - y1))
            left, top = x - x1, y - y1
            box = targets.boxes.new_tensor([left, top, left + patch.targets.size[1], top + patch.targets.size[0]])
            if not len(targets) or overlap(box, targets.boxes).max() <= self.max_overlap:
                return left, top
        return None

    @staticmethod
    def _paste(image: Tensor, pixels: Tensor, core: Window, place: tuple[int, int]) -> None:
        """Lay a patch into `image` (C, H, W), in place: full inside its box, fading to nothing at its border."""
        _, height, width = pixels.shape
        across = _fade(width, core[0], core[2])[None, :]
        weight = torch.minimum(_fade(height, core[1], core[3])[:, None], across)  # (h, w)
        left, top = place
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(left + width, image.shape[2]), min(top + height, image.shape[1])
        part = (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))
        below = image[:, y1:y2, x1:x2]
        weight, above = weight[part], pixels[(slice(None), *part)].float()
        below.copy_(to_dtype(below.float() * (1 - weight) + above * weight, image.dtype))


def _fade(length: int, start: int, end: int) -> Tensor:
    """(length,) weights: 1 in start..end, falling evenly to 0 just beyond either border.

    Example:
        >>> _fade(6, 2, 4).tolist() == [torch.tensor(k / 3).item() for k in (1, 2, 3, 3, 2, 1)]
        True
    """
    places = torch.arange(length)
    before = (places + 1) / (start + 1)
    behind = (length - places) / (length - end + 1)
    return torch.minimum(before, behind).clamp(max=1)


def overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """(M,) the intersection of `box` (4,) with each of `boxes` (M, 4), as a share of the smaller of the two."""
    sides = torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2])  # (M, 2)
    smaller = torch.minimum(box_ops.area(box), box_ops.area(boxes)).clamp(min=1e-6)
    return sides.clamp(min=0).prod(dim=1) / smaller


def whole_window(box: Tensor, size: tuple[int, int]) -> Window:
    """The smallest window of whole pixels around `box` (4,) in an image of `size` (height, width); never empty."""
    height, width = size
    x1, y1 = (min(max(int(side), 0), limit - 1) for side, limit in zip(box[:2].floor(), (width, height), strict=True))
    x2, y2 = (int(side) for side in box[2:].ceil())
    return x1, y1, min(max(x2, x1 + 1), width), min(max(y2, y1 + 1), height)
