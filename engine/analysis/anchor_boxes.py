"""The boxes of data sets as a detector sees them, and the number of positive anchors of each.

Shapes: M boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.data.annotations import group_by_image
from engine.data.dataset import DetectionDataset
from engine.data.transforms import resized_size
from engine.errors import InputError
from engine.modeling.anchors import AnchorGenerator, AnchorGrid
from engine.structures import padded_size


@dataclass
class SeenBoxes:
    """Boxes of resized images.

    Attributes:
        boxes: (M, 4) float64 xyxy, pixels of the resized image.
        image_sizes: (M, 2) height and width of the resized and padded image of each box.
        images: (M,) index of the image of each box.
        num_images: images read, with or without boxes.
    """

    boxes: np.ndarray
    image_sizes: np.ndarray
    images: np.ndarray
    num_images: int

    @property
    def shapes(self) -> np.ndarray:
        """(M, 2) widths and heights."""
        return self.boxes[:, 2:] - self.boxes[:, :2]


def collect_boxes(
    datasets: Sequence[DetectionDataset],
    min_size: int,
    max_size: int,
    size_divisibility: int = 0,
    max_images: int = 0,
    seed: int = 0,
    tile_size: int = 0,
) -> SeenBoxes:
    """All boxes except crowds, in `max_images` random images (0 means all), after resizing as in training.

    With tiles of `tile_size` pixels the images are seen whole, at the scale of the tiles.

    Raises:
        InputError: there are no boxes in images whose size is known.
    """
    found: list[tuple[np.ndarray, tuple[int, int], int]] = []  # boxes of an image, its size, its number
    first = 0  # number of the first image of the data set
    chosen = choose_images(sum(len(dataset) for dataset in datasets), max_images, seed)
    for dataset in datasets:
        annotations = dataset.annotations
        rows = np.flatnonzero(~annotations.crowd)
        order, offsets = group_by_image(annotations.image_rows[rows], len(annotations.image_ids))
        sorted_boxes = annotations.boxes_xywh[rows[order]]  # (M, 4)
        row_of_image = {image_id: row for row, image_id in enumerate(annotations.image_ids)}
        for number, (image_id, size) in enumerate(zip(dataset.image_ids, dataset.measured_sizes(), strict=True), first):
            row = row_of_image[image_id]
            boxes_xywh = sorted_boxes[offsets[row] : offsets[row + 1]]
            if number in chosen and len(boxes_xywh) and all(size):  # a file that cannot be read may have no size
                if tile_size:
                    factor = min(min_size, max_size) / tile_size
                    height, width = (max(round(int(side) * factor), 1) for side in size)
                else:
                    height, width = resized_size((int(size[0]), int(size[1])), min_size, max_size)
                scale = np.array([width / size[1], height / size[0]] * 2)
                boxes = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1) * scale
                found.append((boxes, padded_size((height, width), size_divisibility), number))
        first += len(dataset)
    if not found:
        raise InputError("the training set has no boxes, so there is nothing to analyse")
    boxes_per_image, sizes, numbers = zip(*found, strict=True)
    counts = [len(boxes) for boxes in boxes_per_image]
    image_sizes = np.repeat(np.array(sizes, dtype=np.float64), counts, axis=0)  # (M, 2)
    return SeenBoxes(np.concatenate(boxes_per_image), image_sizes, np.repeat(numbers, counts), len(chosen))


def choose_images(num_images: int, max_images: int, seed: int) -> set[int]:
    """Indices of `max_images` random images out of `num_images`; 0 means all."""
    if not 0 < max_images < num_images:
        return set(range(num_images))
    return set(np.random.default_rng(seed).choice(num_images, max_images, replace=False).tolist())


def count_positives(
    seen: SeenBoxes, anchor_generator: AnchorGenerator, assign: Callable[[AnchorGrid, Tensor], Tensor]
) -> np.ndarray:
    """The number of positive anchors (M,) of each box, by the assigner `assign` of `modeling.assign`."""
    counts = np.zeros(len(seen.boxes))
    for index in np.unique(seen.images):
        rows = np.flatnonzero(seen.images == index)
        height, width = seen.image_sizes[rows[0]].astype(int).tolist()
        maps = [torch.empty(0, -(-height // s), -(-width // s)) for s in anchor_generator.strides]
        matched = assign(anchor_generator(maps, (height, width)), torch.from_numpy(seen.boxes[rows]).float())
        counts[rows] = matched[matched >= 0].bincount(minlength=len(rows)).numpy()
    return counts
