from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor


def padded_size(size: tuple[int, int], divisibility: int) -> tuple[int, int]:
    """`size` (height, width) rounded up to multiples of `divisibility`; 0 and 1 change nothing.

    Example:
        >>> padded_size((100, 64), 32)
        (128, 64)
    """
    height, width = size
    step = max(divisibility, 1)
    return -(-height // step) * step, -(-width // step) * step


@dataclass
class ImageBatch:
    """N images of different sizes in one tensor.

    Attributes:
        tensor: (N, C, H, W), padded with zeros below and to the right; float32 and normalised where a model takes it.
        sizes: (height, width) of each image before padding.
    """

    tensor: Tensor
    sizes: list[tuple[int, int]]

    @classmethod
    def from_list(
        cls,
        images: Sequence[Tensor],
        size_divisibility: int = 0,
        write: Callable[[Tensor, Tensor], object] | None = None,
        empty: Callable[[Sequence[int], torch.dtype], Tensor] | None = None,
    ) -> ImageBatch:
        """Pad images (C, H_i, W_i) to the size of the largest, see `padded_size`; bytes among floats become floats.

        Args:
            write: (place, image) writes an image to its place in the batch, float32 (C, H_i, W_i); by default a copy.
            empty: (shape, type) -> uninitialised memory for the batch; by default on the device of the images.
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        padded = padded_size(tuple(max(side) for side in zip(*sizes, strict=True)), size_divisibility)
        # A float must not become a byte.
        dtype = torch.float32 if write else reduce(torch.promote_types, (image.dtype for image in images))
        shape = (len(images), images[0].shape[0], *padded)
        tensor = empty(shape, dtype) if empty else images[0].new_empty(shape, dtype=dtype)
        for slot, image, (height, width) in zip(tensor, images, sizes, strict=True):
            (write or Tensor.copy_)(slot[:, :height, :width], image)
            slot[:, :height, width:] = 0
            slot[:, height:] = 0
        return cls(tensor, sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def unpadded(self) -> list[Tensor]:
        """The images (C, H_i, W_i), as views of the batch."""
        return [image[:, :height, :width] for image, (height, width) in zip(self.tensor, self.sizes, strict=True)]

    @property
    def padded_size(self) -> tuple[int, int]:
        """(H, W) of the tensor."""
        return self.tensor.shape[-2], self.tensor.shape[-1]

    def to(self, device: torch.device | str) -> ImageBatch:
        # A non-blocking copy to the CPU could be read before it is complete.
        return replace(self, tensor=self.tensor.to(device, non_blocking=torch.device(device).type == "cuda"))
