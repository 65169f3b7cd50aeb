"""cfg -> a COCO set of augmented images on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from yacs.config import CfgNode

from engine.assembly.augmentation import build_augmentations
from engine.assembly.data import build_dataset, measure_value_range
from engine.assembly.tiling import is_tiled
from engine.data.augmented import AugmentedSet, write_augmented_set
from engine.data.dataset import ConcatDataset
from engine.data.transforms import Transform
from engine.errors import InputError
from engine.log import get_logger

logger = get_logger(__name__)


def augment_dataset(
    cfg: CfgNode,
    output: Path,
    names: Sequence[str] = (),
    num_copies: int = 1,
    seed: int = 0,
    with_originals: bool = False,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> AugmentedSet:
    """Write the images of the data sets `names` (by default DATASETS.TRAIN) after the steps of INPUT.AUGMENTATIONS.

    For the other arguments see `data.augmented.write_augmented_set`. Resizing, flips and jitter of other keys are left
    to the training.

    Raises:
        InputError: there is no step or no data set, the data are unusable, or `output` exists or cannot be written.
    """
    if not cfg.INPUT.AUGMENTATIONS:
        raise InputError("INPUT.AUGMENTATIONS is empty; name the steps that make new images of the old ones")
    if is_tiled(cfg):
        logger.info("TILING: whole images are augmented; a training with the same block cuts the new ones into tiles")
    names = list(names) or list(cfg.DATASETS.TRAIN)
    if not names:
        raise InputError("DATASETS.TRAIN is empty; name at least one data set")
    first = build_dataset(cfg, names[0])
    others = [build_dataset(cfg, name, first.class_names) for name in names[1:]]
    dataset = ConcatDataset([first, *others]) if others else first
    measure_value_range(dataset)
    transform = Transform(build_augmentations(cfg, dataset.class_names))
    return write_augmented_set(
        dataset, first.category_ids, transform, output, num_copies, seed, with_originals, progress
    )
