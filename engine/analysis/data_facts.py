"""What the choice of settings needs to know of a data set.

Shapes: n images, m annotations, M boxes to train on. Sizes of images are (height, width).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import cv2
import numpy as np

from engine.data.dataset import DetectionDataset
from engine.errors import InputError

_FEW = 40
"""Images that are read for what only their pixels tell."""


@dataclass(frozen=True)
class DataFacts:
    """Numbers of a data set.

    Attributes:
        num_images: with and without boxes.
        image_size: (height, width) of the image of median area.
        long_side: how many times its short side the long side of an image is; 97 of 100 images are not longer.
        sizes: (M,) square roots of the areas of boxes, pixels of the original.
        typical_sizes: (M,) the same if all images were resized to the short side of `image_size`.
        labels: (M,) classes.
        boxes_of: class name -> boxes.
        most_boxes: in one image.
        empty_share: of the images, those without a box to train on.
    """

    num_images: int
    image_size: tuple[int, int]
    long_side: float
    sizes: np.ndarray
    typical_sizes: np.ndarray
    labels: np.ndarray
    boxes_of: dict[str, int]
    most_boxes: int
    empty_share: float


def data_facts(dataset: DetectionDataset) -> DataFacts:
    """The facts of the boxes and the headers of the images.

    Raises:
        InputError: there is no box to train on, or the size of no image is known.
    """
    table = dataset.annotations
    image_sizes = dataset.measured_sizes().astype(np.float64)  # (n, 2)
    areas = image_sizes.prod(1)
    if not areas.any():
        raise InputError(f"{dataset.name}: none of its images can be read, such as {dataset.image_path(0)}")
    known = np.flatnonzero(areas)
    typical = image_sizes[known[np.argsort(areas[known], kind="stable")[len(known) // 2]]]
    row_of = {image_id: row for row, image_id in enumerate(table.image_ids)}
    index_of_row = np.full(len(table.image_ids), -1)  # row of the table -> index in the data set
    index_of_row[[row_of[image_id] for image_id in dataset.image_ids]] = np.arange(len(dataset))
    indices = index_of_row[table.image_rows]  # (m,)
    is_used = ~table.crowd & (table.boxes_xywh[:, 2:] > 0).all(1) & (indices >= 0)
    is_used[is_used] = areas[indices[is_used]] > 0
    indices, boxes = indices[is_used], table.boxes_xywh[is_used]
    if not len(boxes):
        raise InputError(f"{dataset.name}: there are no boxes to train on; check the annotations")
    sizes = np.sqrt(np.minimum(boxes[:, 2:], image_sizes[indices][:, ::-1]).prod(1))  # (M,)
    counts = np.bincount(indices, minlength=len(dataset))
    short, labels = image_sizes.min(1), table.category_rows[is_used]
    return DataFacts(
        num_images=len(dataset),
        image_size=(int(typical[0]), int(typical[1])),
        long_side=float(np.percentile(image_sizes[known].max(1) / short[known], 97)),
        sizes=sizes,
        typical_sizes=sizes * typical.min() / short[indices],
        labels=labels,
        boxes_of={name: int((labels == row).sum()) for row, name in enumerate(table.category_names)},
        most_boxes=int(counts.max()),
        empty_share=float((counts == 0).mean()),
    )


@dataclass(frozen=True)
class PixelFacts:
    """What only the pixels tell; from a few images spread over the data set.

    Attributes:
        seconds_to_read: an image, decoded, in one process.
        brighter_above: (images,) see `recipe.choose_vertical_flip`.
    """

    seconds_to_read: float
    brighter_above: np.ndarray


def pixel_facts(dataset: DetectionDataset) -> PixelFacts:
    """Read a few images."""
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(_FEW, len(dataset))).astype(int)).tolist()
    seconds, differences = [], []
    for index in indices:
        began = time.process_time()
        try:
            image = dataset.read(index)[0]
        except InputError:
            continue  # the check of the data names it
        seconds.append(time.process_time() - began)
        small = cv2.resize(image.astype(np.float32), (32, 32), interpolation=cv2.INTER_AREA)
        small = small.reshape(32, 32, -1).mean(-1)
        if small.std() > 0:
            differences.append((small[:16].mean() - small[16:].mean()) / small.std())
    return PixelFacts(float(np.median(seconds)) if seconds else 0.05, np.array(differences))
