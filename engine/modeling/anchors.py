"""Anchors: fixed boxes on a grid.

Shapes: L levels, A anchors per cell, R anchors per image, H W the grid of a level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.structures import PixelConvention


def cell_anchors_rounded(stride: int, sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors (A, 4) of the first cell as the reference computes them; ratio-major, size-minor.

    Width and height at the size of one cell are rounded to whole pixels (w = round(sqrt(s^2 / r)), h = round(w r)),
    then scaled. The centre, stride / 2 in the reference's inclusive pixels, lies half a pixel further in our storage,
    see `structures.pixel_convention`.
    """
    anchors = []
    for ratio in ratios:
        width = round(math.sqrt(stride * stride / ratio))
        height = round(width * ratio)
        anchors += [(width * size / stride, height * size / stride) for size in sizes]
    return _centered(anchors, stride / 2 + 0.5)


def cell_anchors_exact(stride: int, sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors (A, 4) of the first cell as mmdetection, detectron2 and torchvision compute them, centred on (0, 0).

    A size is the square root of the area, a ratio height / width; ratio-major, size-minor.
    """
    anchors = [(size / math.sqrt(ratio), size * math.sqrt(ratio)) for ratio in ratios for size in sizes]
    return _centered(anchors, 0.0)


def cell_anchors_whole(stride: int, sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """`cell_anchors_exact` with the sides rounded to whole pixels, as in torchvision."""
    return cell_anchors_exact(stride, sizes, ratios).round()


CELL_ANCHORS = {"reference": cell_anchors_rounded, "exact": cell_anchors_exact, "torchvision": cell_anchors_whole}
"""(stride, sizes, ratios) -> (A, 4), by `PixelConvention.anchor_rule`."""


def octave_sizes(
    sizes: Sequence[float], octave: float = 2.0, num_scales: int = 1, whole: bool = False
) -> list[list[float]]:
    """All sizes of each level from its first one: size * octave ** (i / num_scales), i = 0, 1, ...

    Args:
        whole: round each down to whole pixels (torchvision).

    Example:
        >>> octave_sizes([32], 2.0, 3, whole=True)
        [[32, 40, 50]]
    """
    levels = [[size * octave ** (i / num_scales) for i in range(num_scales)] for size in sizes]
    return [[int(size) for size in level] for level in levels] if whole else levels


def _centered(widths_heights: list[tuple[float, float]], center: float) -> Tensor:
    half = torch.tensor(widths_heights, dtype=torch.float64) / 2
    return torch.cat([center - half, center + half], dim=1).float()


@dataclass(frozen=True)
class AnchorGrid:
    """Anchors of one batch; every image has the same.

    Attributes:
        boxes: (R, 4) float32 xyxy, level by level, row by row, anchor by anchor in a cell.
        grids: (H, W) of each level.
        steps: pixels between neighbouring cells of each level, (down, across).
        strides: nominal stride of each level, which `steps` differ from only where anchors are stretched over an image
            that the stride does not divide (see `AnchorGenerator`).
        per_cell: A. The anchors of a cell share their centre.
        convention: what the sides of boxes mean.
    """

    boxes: Tensor
    grids: list[tuple[int, int]]
    steps: list[tuple[int, int]]
    strides: list[int]
    per_cell: int
    convention: PixelConvention

    @property
    def num_per_level(self) -> list[int]:
        return [height * width * self.per_cell for height, width in self.grids]

    @property
    def boxes_per_level(self) -> list[Tensor]:
        return list(self.boxes.split(self.num_per_level))


class AnchorGenerator(nn.Module):
    """Lays the anchors of a cell over the grid of each level; keeps no state, so that threads may share it.

    Args:
        sizes: side of the anchors of each level in pixels (several for several scales).
        ratios: height / width, the same at every level.
        strides: pixels between cells, one per level.
        convention: its `anchor_rule` says where anchors lie and how they are rounded. With "torchvision" cells lie as
            many pixels apart as the padded image has for each, rounded down; `strides` hold for an image that they
            divide.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        convention: PixelConvention,
    ) -> None:
        super().__init__()
        cell_anchors = CELL_ANCHORS[convention.anchor_rule]
        self.convention = convention
        self.strides = list(strides)
        self.per_cell = len(ratios) * len(sizes[0])
        self.register_buffer(
            "cells",  # (L, A, 4)
            torch.stack([cell_anchors(*args, ratios) for args in zip(strides, sizes, strict=True)]),
            persistent=False,
        )

    def forward(self, features: Sequence[Tensor], image_size: tuple[int, int] | None = None) -> AnchorGrid:
        """Anchors for maps (N, C, H_l, W_l).

        Args:
            features: the pyramid.
            image_size: (height, width) of the padded images; needed with the anchors of torchvision only.
        """
        grids = [(f.shape[-2], f.shape[-1]) for f in features]
        steps = [(stride, stride) for stride in self.strides]
        if self.convention.stretches_anchors and image_size is not None:
            steps = [(image_size[0] // height, image_size[1] // width) for height, width in grids]
        levels = [self._level(*level) for level in zip(self.cells, steps, grids, strict=True)]
        return AnchorGrid(torch.cat(levels), grids, steps, self.strides, self.per_cell, self.convention)

    @staticmethod
    def _level(cell: Tensor, step: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        ys = torch.arange(grid[0], device=cell.device, dtype=cell.dtype) * step[0]
        xs = torch.arange(grid[1], device=cell.device, dtype=cell.dtype) * step[1]
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)  # (HW, 1, 4)
        return (shifts + cell).reshape(-1, 4)  # (HWA, 4)
