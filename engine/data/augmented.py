"""A COCO set of augmented images, written to disk.

Shapes: C channels, H W.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from engine.data.annotations import CategoryId
from engine.data.dataset import LabelledImages
from engine.data.image_file import write_image
from engine.data.transforms import Scene, Transform, random_state
from engine.errors import InputError
from engine.files import new_folder, write_json
from engine.structures import Targets
from engine.structures import boxes as box_ops

IMAGE_FOLDER, ANNOTATION_FILE = "images", "annotations/instances.json"
LEVELS_OF_16_BITS = 65535
_CHANNELS_OF_PNG = (1, 3, 4)
_LONGEST_STEM = 40  # characters of the source's name in the new one


@dataclass
class AugmentedSet:
    """What was written.

    Attributes:
        content: the COCO file.
        skipped: a line for each image that cannot be read and has no copies.
        is_deep: some images have 16 bits, whose values 0..65535 are 0..255 of the transforms.
    """

    content: dict[str, Any]
    skipped: list[str] = field(default_factory=list)
    is_deep: bool = False


def write_augmented_set(
    dataset: LabelledImages,
    category_ids: Sequence[CategoryId],
    transform: Transform,
    folder: Path,
    num_copies: int = 1,
    seed: int = 0,
    with_originals: bool = False,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> AugmentedSet:
    """Write `num_copies` augmented images for each image of `dataset` into a new folder, complete or not at all.

    Images and boxes get new ids; each image states the id and the file of its source. Ignore regions are crowds.
    Copies are PNG, of 16 bits for images of more than 8 bits. What is drawn is a function of (seed, copy, image).

    Args:
        category_ids: label k -> id in the new file.
        transform: from an image as read to another one in 0..255; it does not normalise.
        folder: must not exist.
        with_originals: the originals too; files of 8 bits are copied as they are.
        progress: wraps the iteration over the images, for a progress bar.

    Raises:
        InputError: the folder exists or cannot be written, or no image can be read.
    """
    categories = [
        {"id": category_id, "name": name} for category_id, name in zip(category_ids, dataset.class_names, strict=True)
    ]
    written = AugmentedSet({"images": [], "annotations": [], "categories": categories})
    with new_folder(folder) as made:
        for index in progress(range(len(dataset))):
            try:
                image, targets = dataset.read(index)
            except InputError as error:
                written.skipped.append(str(error))
                continue
            if with_originals:
                _add(written, made, dataset, index, 0, image, targets)
            for copy in range(1, num_copies + 1):
                position = (copy - 1) * len(dataset) + index
                scene = Scene(dataset, dataset.read, index, seed, position)
                with random_state(seed, position):
                    pixels, changed = transform(image, targets, scene)
                _add(written, made, dataset, index, copy, _as_array(pixels), changed)
        if not written.content["images"]:
            raise InputError(f"none of {len(dataset)} images can be read; the first: {[*written.skipped, 'none'][0]}")
        write_json(made / ANNOTATION_FILE, written.content)
    return written


def _add(
    written: AugmentedSet,
    folder: Path,
    dataset: LabelledImages,
    index: int,
    copy: int,
    image: np.ndarray,
    targets: Targets,
) -> None:
    """Write one image, and its entries; `copy` 0 is the original."""
    source = dataset.image_path(index)
    if image.shape[2] not in _CHANNELS_OF_PNG:
        raise InputError(f"images of {image.shape[2]} channels cannot be written as PNG; augment them in training only")
    is_deep = image.dtype != np.uint8
    is_file_kept = copy == 0 and source is not None and not is_deep
    suffix = source.suffix if is_file_kept else ".png"
    stem = "" if source is None else f"_{source.stem[:_LONGEST_STEM]}"
    path = folder / IMAGE_FOLDER / f"{index + 1:06d}_{copy}{stem}{suffix}"
    if is_file_kept:
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, path)
    else:
        scale = np.float32(LEVELS_OF_16_BITS / 255)
        write_image(path, (image * scale).round().astype(np.uint16) if is_deep else image)
    written.is_deep |= is_deep
    images, annotations = written.content["images"], written.content["annotations"]
    height, width = image.shape[:2]
    images.append(
        {
            "id": len(images) + 1,
            "file_name": path.name,
            "height": height,
            "width": width,
            "source_id": dataset.image_id(index),
            "source_file": "" if source is None else source.name,
        }
    )
    boxes_xywh = box_ops.to_xywh(targets.boxes.double()).round(decimals=3)
    for box, label, ignore in zip(boxes_xywh.tolist(), targets.labels.tolist(), targets.ignore.tolist(), strict=True):
        if min(box[2:]) <= 0:  # less than half a thousandth of a pixel is left
            continue
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": len(images),
                "category_id": written.content["categories"][label]["id"],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(ignore),
            }
        )


def _as_array(pixels: Tensor) -> np.ndarray:
    """(C, H, W) -> (H, W, C)"""
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
