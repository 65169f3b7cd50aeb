"""cfg -> the images on which the ranges of an int8 network are measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor
from yacs.config import CfgNode

from engine.assembly.data import build_test_transform, build_train_dataset
from engine.data.find_images import find_images
from engine.data.image_file import read_image
from engine.data.reading import Reading
from engine.data.transforms import Transform, split_normalize
from engine.errors import InputError
from engine.export.quantize import Sample
from engine.log import get_logger
from engine.runtime.card import FixedShape

NUM_IMAGES = 100
FEWEST = 10
"""Below this, the ranges are those of a few pictures and not of the task."""
SEED = 0

logger = get_logger(__name__)


def calibration_samples(cfg: CfgNode, shape: FixedShape, images: Path | None, count: int = NUM_IMAGES) -> list[Sample]:
    """At most `count` real images as the exported network takes them, the same ones each time.

    Args:
        shape: what the network has fixed.
        images: a folder of them; None for those of `DATASETS.TRAIN` (their tiles with `TILING`).

    Raises:
        InputError: there are none, fewer than `FEWEST` can be read, or one does not fit `shape`.
    """
    read, number, source = _from_folder(cfg, images) if images else _from_training(cfg)
    resize, _ = split_normalize(Transform([]) if shape.image_size else build_test_transform(cfg))
    samples: list[Sample] = []
    reason = ""
    for index in np.sort(np.random.default_rng(SEED).permutation(number)[:count]).tolist():
        try:
            tensor, _ = resize(read(index))
        except InputError as error:
            reason = reason or f" that can be read; the first that cannot: {error}"
            continue
        samples.append(network_input(tensor, shape))
    if len(samples) < FEWEST:
        raise InputError(
            f"--precision int8 measures its ranges on at least {FEWEST} real images; {source} has {len(samples)}"
            f"{reason or ', name more'}"
        )
    logger.info("int8: ranges are measured on %d of the %d images of %s", len(samples), number, source)
    return samples


def network_input(pixels: Tensor, shape: FixedShape) -> Sample:
    """What the network takes for one image in 0..255 (C, H, W), padded and repeated to what it has fixed.

    Raises:
        InputError: the image is larger than the fixed size.
    """
    height, width = pixels.shape[1:]
    bottom, right = shape.input_size or shape.image_size or (height, width)
    if height > bottom or width > right or (shape.image_size and (height, width) != (bottom, right)):
        raise InputError(f"an image of {height} x {width} pixels does not fit the fixed size of {bottom} x {right}")
    padding = ((0, 0), (0, bottom - height), (0, right - width), (0, 0))
    image = pixels.round().byte().permute(1, 2, 0).numpy()[None]  # (1, H, W, C)
    repeats = shape.batch_size or 1
    return {
        "images": np.repeat(np.pad(image, padding), repeats, axis=0),
        "sizes": np.repeat(np.array([[height, width]], dtype=np.int64), repeats, axis=0),
    }


def _from_folder(cfg: CfgNode, folder: Path) -> tuple[Callable[[int], np.ndarray], int, str]:
    """How to read the image of an index, how many there are, and where they are from."""
    paths = find_images([folder], recursive=True).paths
    reading = Reading(cfg.INPUT.VALUE_RANGE or None, cfg.INPUT.CHANNELS, cfg.INPUT.ORIENTATION)
    return lambda index: read_image(paths[index], reading=reading), len(paths), str(folder)


def _from_training(cfg: CfgNode) -> tuple[Callable[[int], np.ndarray], int, str]:
    if not cfg.DATASETS.TRAIN:
        raise InputError(
            "--precision int8 measures its ranges on real images: name a folder with --images, or DATASETS.TRAIN"
        )
    dataset = build_train_dataset(cfg)
    return lambda index: dataset.read(index)[0], len(dataset), "DATASETS.TRAIN"
