"""cfg -> the images on which the ranges of an int8 network are measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from engine.assembly.data import build_train_dataset
from engine.data.find_images import find_images
from engine.data.image_file import read_image
from engine.data.tiled_dataset import untiled
from engine.errors import InputError
from engine.export.quantize import Sample
from engine.log import get_logger
from engine.runtime.card import ModelCard
from engine.runtime.detector import detect_as_card_says, reading_of

NUM_SAMPLES = 100
FEWEST = 10
"""With fewer, the ranges are those of a few pictures and not of the task."""
MOST_TILES = 4
"""Of one image, where the network sees tiles."""
SEED = 0


def calibration_samples(
    cfg: CfgNode, card: ModelCard, images: Path | None = None, count: int = NUM_SAMPLES
) -> list[Sample]:
    """At most `count` inputs of the exported network, from real images, the same ones each time.

    They are prepared as the runtime does it, since the runtime does it.

    Args:
        card: of the file to be written.
        images: a folder; None for the images of `DATASETS.TRAIN`.

    Raises:
        InputError: there are no images, or too few that can be read and that the network takes.
    """
    read, number, source = _in_folder(images, card) if images else _of_training(cfg)
    rng = np.random.default_rng(SEED)
    samples: list[Sample] = []
    reason = ""
    for index in rng.permutation(number).tolist():
        try:
            inputs = _network_inputs(read(index), card)
        except InputError as error:
            reason = reason or f"; the first that cannot be used: {error}"
            continue
        samples += [inputs[row] for row in rng.permutation(len(inputs))[:MOST_TILES]]
        if len(samples) >= count:
            break
    if len(samples) < FEWEST:
        raise InputError(
            f"--precision int8 measures ranges on at least {FEWEST} real images, and {source} has {len(samples)}: "
            f"name a folder of more with --images{reason}"
        )
    get_logger(__name__).info("int8: ranges are measured on %d pictures of %s", len(samples[:count]), source)
    return samples[:count]


def _network_inputs(pixels: np.ndarray, card: ModelCard) -> list[Sample]:
    """What the network is given for one image; several tiles have an entry each."""
    inputs: list[Sample] = []

    def record(images: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, ...]:
        inputs.append({"images": images, "sizes": sizes})
        rows = len(images)
        no_labels, counts = np.zeros((rows, 0), np.int64), np.zeros(rows, np.int64)
        return np.zeros((rows, 0, 4), np.float32), np.zeros((rows, 0), np.float32), no_labels, counts

    detect_as_card_says(record, card, card.shape.batch_size or 1, "the network")([pixels])
    return inputs


def _in_folder(folder: Path, card: ModelCard) -> tuple[Callable[[int], np.ndarray], int, str]:
    """How to read the image of an index, how many there are, and where they are from."""
    paths = find_images([folder], recursive=True).paths
    return lambda index: read_image(paths[index], reading=reading_of(card)), len(paths), str(folder)


def _of_training(cfg: CfgNode) -> tuple[Callable[[int], np.ndarray], int, str]:
    if not cfg.DATASETS.TRAIN:
        raise InputError("--precision int8 measures ranges on real images: name a folder with --images")
    dataset = untiled(build_train_dataset(cfg))
    return lambda index: dataset.read(index)[0], len(dataset), "DATASETS.TRAIN"
