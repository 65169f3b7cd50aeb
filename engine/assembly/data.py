"""cfg -> data sets, transforms and loaders."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from yacs.config import CfgNode

from engine.assembly.augmentation import build_augmentations
from engine.assembly.convention import build_convention
from engine.assembly.sizes import train_sizes
from engine.assembly.solver import run_length
from engine.assembly.tiling import is_tiled, with_tiles
from engine.data import catalog, samplers, summary, transforms
from engine.data.classes import ClassMap, unknown_names
from engine.data.dataset import DATASET_TYPES, ConcatDataset, DetectionDataset, LabelledImages
from engine.data.dataset_range import range_of_dataset
from engine.data.epochs import plan_epochs, with_neighbours
from engine.data.formats.recognise import read_annotations
from engine.data.loader import BatchLoader, TestSamples, TrainSamples
from engine.data.tiled_dataset import TiledDataset, untiled
from engine.data.value_range import ValueRange, shown_range
from engine.device import num_cpus
from engine.distributed import broadcast_object, is_main, rank, world_size
from engine.errors import InputError, shown
from engine.log import get_logger
from engine.registry import import_modules, lookup
from engine.spelling import did_you_mean

logger = get_logger(__name__)

VALUE_RANGE, CHANNELS = "INPUT.VALUE_RANGE", "INPUT.CHANNELS"
"""The conventions under which a checkpoint holds the range of values that its images were scaled by, and the number of
their channels if it is not 3."""


_file_classes: dict[catalog.DatasetPaths, list[str]] = {}
"""The classes of the annotation files read so far, by the names in the file."""


def build_dataset(
    cfg: CfgNode, name: str, class_names: Sequence[str] | None = None, filter_empty: bool = False
) -> DetectionDataset:
    """The data set of that name; label k is class_names[k] if they are given.

    Images without boxes to train on are left out with `filter_empty`.

    Raises:
        InputError: the data set is not declared, a file or folder of it is missing, its annotation file is faulty, or a
            name of DATASETS.CLASSES or CLASS_MAP is unknown.
    """
    try:
        dataset = _open_dataset(cfg, name, class_names, filter_empty)
    except InputError:
        _check_class_map(cfg, name)  # a slip there may be the reason
        raise
    _check_class_map(cfg, name)
    return dataset


def _open_dataset(
    cfg: CfgNode, name: str, class_names: Sequence[str] | None = None, filter_empty: bool = False
) -> DetectionDataset:
    """`build_dataset` without a check of CLASS_MAP, whose names may be those of other data sets."""
    paths = catalog.resolve(name, cfg.DATASETS.ROOT, cfg.DATASETS.CATALOG)
    import_modules(cfg.IMPORTS)
    dataset_type = lookup(DATASET_TYPES, paths.type, f"DATASETS.CATALOG.{name}.type")
    selection = {}  # so that a type of the user's own needs to know of it only where it is used
    if cfg.DATASETS.CLASSES:
        selection = {"kept_classes": cfg.DATASETS.CLASSES, "other_classes": cfg.DATASETS.OTHER_CLASSES}
    if cfg.DATASETS.CLASS_MAP or cfg.DATASETS.DROP_BACKGROUND:
        new_names, drop_background = dict(cfg.DATASETS.CLASS_MAP), cfg.DATASETS.DROP_BACKGROUND
        selection["class_map"] = ClassMap(new_names, cfg.DATASETS.OTHER_CLASSES, drop_background)
    if paths.type == "CocoDataset" or paths.format:
        unlisted = paths.unlisted_are_empty
        selection["reader"] = partial(read_annotations, format_name=paths.format, unlisted_are_empty=unlisted)
    dataset = dataset_type(paths.name, paths.img_dir, paths.ann_file, class_names, filter_empty, **selection)
    dataset.value_range, dataset.repeat = cfg.INPUT.VALUE_RANGE or None, paths.repeat
    dataset.channels, dataset.orientation = cfg.INPUT.CHANNELS, cfg.INPUT.ORIENTATION
    _file_classes[paths] = getattr(dataset, "file_class_names", dataset.class_names)
    return dataset


def _check_class_map(cfg: CfgNode, name: str) -> None:
    """Raise an `InputError` if no data set has a name of DATASETS.CLASS_MAP, neither `name` nor TRAIN, VAL and TEST.

    The others are read only if those before them lack a name. Where one of them cannot be read, nothing is known.
    """
    known: dict[str, None] = {}
    names = list(dict.fromkeys([name, *cfg.DATASETS.TRAIN, *cfg.DATASETS.VAL, *cfg.DATASETS.TEST]))
    for each in names:
        if not unknown_names(cfg.DATASETS.CLASS_MAP, known):
            return
        try:
            paths = catalog.resolve(each, cfg.DATASETS.ROOT, cfg.DATASETS.CATALOG)
            if paths not in _file_classes:
                _open_dataset(cfg, each)
        except InputError:
            return
        known |= dict.fromkeys(_file_classes[paths])
    for unknown in unknown_names(cfg.DATASETS.CLASS_MAP, known):
        hint = did_you_mean(unknown, known) or f" (there are {', '.join(map(shown, known))})"
        raise InputError(f"DATASETS.CLASS_MAP: {shown(unknown)} is not a class of {', '.join(names)}{hint}")


def build_train_dataset(cfg: CfgNode) -> LabelledImages:
    """All data sets of DATASETS.TRAIN, one after the other; the classes of the first give the labels of all.

    With TILING, its entries are tiles of the images.

    Raises:
        InputError: there is none, one is unusable, or one has a class that the first has not.
    """
    if not cfg.DATASETS.TRAIN:
        raise InputError("DATASETS.TRAIN is empty; name at least one data set")
    filter_empty = cfg.DATALOADER.FILTER_EMPTY
    first = build_dataset(cfg, cfg.DATASETS.TRAIN[0], filter_empty=filter_empty)
    others = [build_dataset(cfg, name, first.class_names, filter_empty) for name in cfg.DATASETS.TRAIN[1:]]
    return with_tiles(cfg, ConcatDataset([first, *others]) if others else first, filter_empty)


def measure_value_range(dataset: LabelledImages) -> None:
    """Give `dataset` the range of its deep images, the same on all ranks, unless it has one or has no such images."""
    if dataset.value_range is None:
        dataset.value_range = broadcast_object(range_of_dataset(untiled(dataset)) if is_main() else None)
        if dataset.value_range is not None:
            message = "%s: has images of more than 8 bits; INPUT.VALUE_RANGE, measured on them: %s becomes 0..255"
            logger.info(message, dataset.name, shown_range(dataset.value_range))


def set_value_range(cfg: CfgNode, value_range: ValueRange | None) -> None:
    """Make `value_range`, if there is one, that of the run, unless INPUT.VALUE_RANGE is declared."""
    if value_range and not cfg.INPUT.VALUE_RANGE:
        cfg.defrost()
        cfg.INPUT.VALUE_RANGE = value_range
        cfg.freeze()


def report_test_data(cfg: CfgNode, dataset: LabelledImages) -> None:
    """Count and log what there is to test on."""
    if is_main():
        limits = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        summaries = summary.summarize(dataset, *limits, max(cfg.TILING.SIZE, 0))
        summary.report(summaries)
        summary.report_useless(summaries)


def epoch_length(cfg: CfgNode, dataset: LabelledImages) -> int:
    """The images, or tiles, that an epoch of a training on `dataset` has, those that come several times included."""
    plan = plan_epochs(dataset, cfg.DATALOADER.REPEAT_THRESHOLD, cfg.DATALOADER.EMPTY_SHARE, is_logged=False)
    return plan.length if plan else len(dataset)


def build_train_transform(cfg: CfgNode, class_names: Sequence[str] = ()) -> transforms.Transform:
    """What becomes of an image in training; label k is class_names[k], for steps that ask for classes by name."""
    return transforms.train_transform(
        min_sizes=train_sizes(cfg),
        max_size=cfg.INPUT.MAX_SIZE_TRAIN,
        mean=cfg.INPUT.PIXEL_MEAN,
        std=cfg.INPUT.PIXEL_STD,
        to_bgr255=cfg.INPUT.TO_BGR255,
        horizontal_flip=cfg.INPUT.HORIZONTAL_FLIP_PROB_TRAIN,
        vertical_flip=cfg.INPUT.VERTICAL_FLIP_PROB_TRAIN,
        jitter=(cfg.INPUT.BRIGHTNESS, cfg.INPUT.CONTRAST, cfg.INPUT.SATURATION, cfg.INPUT.HUE),
        convention=build_convention(cfg),
        augmentations=build_augmentations(cfg, class_names),
    )


def build_test_transform(cfg: CfgNode) -> transforms.Transform:
    return transforms.test_transform(
        min_size=cfg.INPUT.MIN_SIZE_TEST,
        max_size=cfg.INPUT.MAX_SIZE_TEST,
        mean=cfg.INPUT.PIXEL_MEAN,
        std=cfg.INPUT.PIXEL_STD,
        to_bgr255=cfg.INPUT.TO_BGR255,
        convention=build_convention(cfg),
    )


def build_train_loader(cfg: CfgNode, start_iteration: int = 0, dataset: LabelledImages | None = None) -> BatchLoader:
    """Training batches of this rank from `start_iteration` to the end of the run, see `assembly.solver.run_length`.

    The images are those of `dataset`, by default of `build_train_dataset`. With SEED -1 a seed is drawn and logged,
    the same one for all ranks. Without INPUT.VALUE_RANGE it is measured and logged if there are images of more than 8
    bits, and is the `value_range` of the data set.
    """
    dataset = build_train_dataset(cfg) if dataset is None else dataset
    if cfg.INPUT.VALUE_RANGE:
        logger.info(
            "INPUT.VALUE_RANGE: %s becomes 0..255 in images of more than 8 bits", shown_range(dataset.value_range)
        )
    else:
        measure_value_range(dataset)
    seed = cfg.SEED
    if seed < 0:
        # Not from the global generator: a library that seeds it would make all "random" runs alike.
        seed = broadcast_object(random.SystemRandom().randrange(2**31))
        logger.info("data seed: %d", seed)
    groups = None
    if cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        # Measured by one process: a file that only some of them can read must not give them different batches.
        groups = broadcast_object(samplers.aspect_groups(dataset.measured_sizes()) if is_main() else None)
    plan = plan_epochs(dataset, cfg.DATALOADER.REPEAT_THRESHOLD, cfg.DATALOADER.EMPTY_SHARE)
    if isinstance(dataset, TiledDataset) and (neighbours := dataset.neighbours()):
        plan = with_neighbours(plan, neighbours)
    batch_sampler = samplers.TrainBatchSampler(
        num_images=len(dataset),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        max_iter=run_length(cfg, plan.length if plan else len(dataset)).max_iter,
        seed=seed,
        start_iteration=start_iteration,
        groups=groups,
        rank=rank(),
        world_size=world_size(),
        accumulate=cfg.SOLVER.ACCUMULATE,
        plan=plan,
    )
    transform = build_train_transform(cfg, dataset.class_names)
    samples = TrainSamples(dataset, transform, seed, cfg.SOLVER.IMS_PER_BATCH)
    return _loader(cfg, dataset, samples, batch_sampler)


def build_test_loader(
    cfg: CfgNode, name: str, class_names: Sequence[str] | None = None, transform: transforms.Transform | None = None
) -> BatchLoader:
    """This rank's part of a data set, in order; all ranks together test TEST.IMS_PER_BATCH images at a time.

    With TILING each rank tests one image at a time, and TEST.IMS_PER_BATCH counts tiles, see `assembly.detector`.
    `transform` is applied to the images, by default that of `build_test_transform`.
    """
    dataset = build_dataset(cfg, name, class_names)
    measure_value_range(dataset)
    batch_size = 1 if is_tiled(cfg) else test_batch_size(cfg)
    return _test_loader(cfg, dataset, transform or build_test_transform(cfg), batch_size)


def build_tile_loader(cfg: CfgNode, dataset: LabelledImages) -> BatchLoader:
    """This rank's part of the tiles of a data set, ready for the model."""
    tiles = with_tiles(cfg, dataset)
    return _test_loader(cfg, tiles, build_test_transform(cfg), test_batch_size(cfg))


def test_batch_size(cfg: CfgNode) -> int:
    """The images, or tiles, that each rank tests at once."""
    return max(cfg.TEST.IMS_PER_BATCH // world_size(), 1)


def _test_loader(
    cfg: CfgNode, dataset: LabelledImages, transform: transforms.Transform, batch_size: int
) -> BatchLoader:
    batch_sampler = samplers.TestBatchSampler(len(dataset), batch_size, rank(), world_size())
    return _loader(cfg, dataset, TestSamples(dataset, transform), batch_sampler)


def _loader(
    cfg: CfgNode,
    dataset: LabelledImages,
    samples: TrainSamples | TestSamples,
    batch_sampler: samplers.TrainBatchSampler | samplers.TestBatchSampler,
) -> BatchLoader:
    transform, normalize = transforms.split_normalize(samples.transform)
    return BatchLoader(
        dataset,
        replace(samples, transform=transform),
        batch_sampler,
        size_divisibility=cfg.DATALOADER.SIZE_DIVISIBILITY,
        num_workers=min(cfg.DATALOADER.NUM_WORKERS, num_cpus()),  # more workers than CPUs only take turns
        timeout=cfg.DATALOADER.TIMEOUT,
        pin_memory=cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available(),
        normalize=normalize,
    )
