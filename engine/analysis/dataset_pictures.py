"""Pictures of a data set: its ground truth, next to it the detections of a results file; batches of a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from engine.data.annotations import CategoryId
from engine.data.batch import Batch
from engine.data.dataset import CocoDataset
from engine.data.transforms import Normalize
from engine.errors import InputError
from engine.log import get_logger
from engine.structures import Detections
from engine.structures import boxes as box_ops
from engine.visualize.draw import draw_comparison, draw_targets, titled


def pictures(
    dataset: CocoDataset,
    indices: Sequence[int],
    results: Sequence[Mapping[str, Any]] | None = None,
    threshold: float = 0.3,
    show_labels: bool = True,
) -> Iterator[tuple[str, np.ndarray]]:
    """Draw images of `dataset`; images that cannot be read are logged and skipped.

    Args:
        indices: of the images to draw.
        results: COCO results of the data set, drawn to the right of the ground truth if given.
        threshold: lowest score of a detection to draw.
        show_labels: write class names and scores.

    Yields:
        The name of the image file and the picture, BGR uint8 (H, W, 3), with that name as its title.
    """
    by_image: dict[Any, list[Mapping[str, Any]]] = {}  # results files are not sorted by image
    for result in results or ():
        if result["score"] >= threshold:
            by_image.setdefault(result["image_id"], []).append(result)
    for index in indices:
        try:
            image, targets = dataset.read(index)
        except InputError as error:
            get_logger(__name__).warning("skipped: %s", error)
            continue
        if results is None:
            drawn = draw_targets(image, targets, dataset.class_names, show_labels)
        else:
            found = _detections(by_image.get(dataset.image_id(index), []), dataset.category_ids, targets.size)
            drawn = draw_comparison(image, targets, found, dataset.class_names, show_labels)
        name = dataset.image_path(index).name
        yield name, titled(drawn, name)


def batch_pictures(
    batch: Batch, normalize: Normalize, class_names: Sequence[str], title: str, show_labels: bool = True
) -> Iterator[np.ndarray]:
    """The images of a training batch as the model sees them, without padding, with their targets.

    Args:
        normalize: what the pixels have been through; it is undone.
        title: what stands above each picture, followed by the id of the image.

    Yields:
        Pictures, BGR uint8 (H, W, 3).
    """
    for tensor, size, targets in zip(batch.images.tensor, batch.images.sizes, batch.targets, strict=True):
        pixels = normalize.undo(tensor[:, : size[0], : size[1]])  # (C, H, W)
        image = pixels.permute(1, 2, 0).contiguous().numpy()
        yield titled(draw_targets(image, targets, class_names, show_labels), f"{title}, image {targets.image_id}")


def _detections(
    results: Sequence[Mapping[str, Any]], category_ids: Sequence[CategoryId], size: tuple[int, int]
) -> Detections:
    """COCO results of one image of `size` (height, width) as detections."""
    label_of = {category_id: label for label, category_id in enumerate(category_ids)}
    boxes_xywh = torch.tensor([result["bbox"] for result in results], dtype=torch.float32).reshape(-1, 4)
    return Detections(
        boxes=box_ops.from_xywh(boxes_xywh),
        scores=torch.tensor([result["score"] for result in results], dtype=torch.float32),
        labels=torch.tensor([label_of[result["category_id"]] for result in results], dtype=torch.int64),
        size=size,
    )
