"""Regions of interest cut out of a pyramid, each from the level that suits its size.

Shapes: N images, L levels, P regions, C channels, S cells along a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from engine.structures import PixelConvention
from engine.structures import boxes as box_ops

CANONICAL_SIZE, CANONICAL_STRIDE = 224, 16
"""A region of this size is pooled at this stride (Lin et al., 2017: FPN, eq. 1): that of an ImageNet picture, at C4."""


def assign_levels(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Index (P,) into `strides` of the level for each box (P, 4): a level up for each doubling of sqrt(area).

    Args:
        strides: powers of two, each double the one before.

    Example:
        >>> assign_levels(torch.tensor([[0.0, 0.0, 111, 111], [0.0, 0.0, 112, 112]]), (4, 8, 16, 32)).tolist()
        [0, 1]
    """
    size_of_first = CANONICAL_SIZE * strides[0] / CANONICAL_STRIDE
    ratios = box_ops.area(boxes).clamp(min=0).sqrt() / size_of_first + 1e-6  # (P,)
    # Compared with powers of two, since runtimes round logarithms differently.
    return (ratios[:, None] >= ratios.new_tensor([2.0**level for level in range(1, len(strides))])).sum(dim=1)


class RoIPooler(nn.Module):
    """RoIAlign (He et al., 2017) on the levels of a pyramid.

    Args:
        resolution: S.
        strides: of the levels that are pooled from, the pyramid's first ones.
        convention: of the regions; in the inclusive one a region ends at its last pixel.
        sampling_ratio: samples along each side of a cell, 0 for as many as it has pixels (rounded up).
        aligned: pixel centres lie at half-integers (detectron2, mmdetection 2). False: at integers, and a region is at
            least a pixel of the map wide (the reference, torchvision).
    """

    def __init__(
        self,
        resolution: int,
        strides: Sequence[int],
        convention: PixelConvention,
        sampling_ratio: int = 0,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.resolution, self.strides = resolution, tuple(strides)
        self.sampling_ratio, self.aligned, self.convention = sampling_ratio, aligned, convention

    def forward(self, features: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """(P, C, S, S) of all regions, image by image.

        Args:
            features: at least as many maps (N, C, H_l, W_l) as `strides`; further ones are not used.
            boxes: (P_i, 4) of each image.
        """
        image_idx = torch.cat([box.new_full((len(box),), i) for i, box in enumerate(boxes)])
        return self.pool(features, torch.cat(list(boxes)), image_idx)

    def pool(self, features: Sequence[Tensor], regions: Tensor, image_idx: Tensor) -> Tensor:
        """(P, C, S, S) of regions (P, 4) in the images `image_idx` (P,), float; see `forward`."""
        levels = assign_levels(regions, self.strides)
        rows = torch.cat([image_idx[:, None], self.convention.without_last_pixel(regions)], dim=1)  # (P, 5)
        pooled = rows.new_zeros(rows.shape[0], features[0].shape[1], self.resolution, self.resolution)
        for level, (feature, stride) in enumerate(zip(features, self.strides, strict=False)):
            idx = (levels == level).nonzero()[:, 0]
            pooled[idx] = roi_align(
                feature.float(), rows[idx], self.resolution, 1 / stride, self.sampling_ratio, self.aligned
            )
        return pooled
