"""The rules about images, data sets and test-time augmentation."""

from __future__ import annotations

from yacs.config import CfgNode

from engine.config.comparisons import Broken, equal_lengths
from engine.config.declaration import MIN_SIZE
from engine.spelling import normal_name

MIN_TILE = 32
"""Smallest side of a tile in pixels."""


def image_values(tree: CfgNode) -> Broken:
    """The rules that `INPUT` breaks."""
    yield from _channels(tree)
    mean, is_bgr255 = tree.INPUT.PIXEL_MEAN, tree.INPUT.TO_BGR255
    keys = ("INPUT.TO_BGR255", "INPUT.PIXEL_MEAN")
    if not is_bgr255 and max(mean) > 1:
        yield (
            keys,
            f"INPUT.TO_BGR255 false means RGB in 0..1, but INPUT.PIXEL_MEAN is {mean}, in 0..255; "
            "divide it by 255 and put red first, and PIXEL_STD likewise",
        )
    if is_bgr255 and 0 < max(mean) <= 1:
        yield (
            keys,
            f"INPUT.TO_BGR255 true means BGR in 0..255, but INPUT.PIXEL_MEAN is {mean}, in 0..1; "
            "multiply it by 255 and put blue first, or write TO_BGR255: False",
        )
    if min(tree.INPUT.PIXEL_STD) <= 0:
        yield ("INPUT.PIXEL_STD",), f"INPUT.PIXEL_STD is {tree.INPUT.PIXEL_STD}; it must be above 0"
    values = tree.INPUT.VALUE_RANGE
    if values and not (len(values) == 2 and values[0] < values[1]):
        allowed = "it must be (low, high) with low < high, or () to measure it"
        yield ("INPUT.VALUE_RANGE",), f"INPUT.VALUE_RANGE is {tuple(values)}; {allowed}"
    low, high = tree.INPUT.MIN_SIZE_RANGE_TRAIN
    if (low, high) != (-1, -1) and not 0 < low <= high:
        allowed = "it must be (low, high) with 0 < low <= high, or (-1, -1) for off"
        yield ("INPUT.MIN_SIZE_RANGE_TRAIN",), f"INPUT.MIN_SIZE_RANGE_TRAIN is ({low}, {high}); {allowed}"
    elif 0 < low < MIN_SIZE:
        allowed = f"sizes must be {MIN_SIZE} or more"
        yield ("INPUT.MIN_SIZE_RANGE_TRAIN",), f"INPUT.MIN_SIZE_RANGE_TRAIN is ({low}, {high}); {allowed}"


def _channels(tree: CfgNode) -> Broken:
    """What belongs to the number of channels."""
    channels, mean = tree.INPUT.CHANNELS, tree.INPUT.PIXEL_MEAN
    likely = tuple([round(sum(mean) / max(len(mean), 1), 3)] * min(channels, 8))
    for key, values, example in (
        ("INPUT.PIXEL_MEAN", mean, likely),
        ("INPUT.PIXEL_STD", tree.INPUT.PIXEL_STD, tuple(tree.INPUT.PIXEL_STD[:1]) * min(channels, 8)),
    ):
        if len(values) != channels:
            count = f"{len(values)} value{'s' if len(values) > 1 else ''}"
            such = f", such as {example}" if channels <= 8 else ""
            yield (
                (key, "INPUT.CHANNELS"),
                f"{key} has {count}, but INPUT.CHANNELS is {channels}; write one for each channel{such}",
            )
    for key, strength in (("INPUT.SATURATION", tree.INPUT.SATURATION), ("INPUT.HUE", tree.INPUT.HUE)):
        if strength and channels != 3:
            count = f"{channels} channel{'s' if channels > 1 else ''}"
            yield (
                (key, "INPUT.CHANNELS"),
                f"{key} is {strength}, but images of {count} (INPUT.CHANNELS) have no colours; write {key} 0.0",
            )


def thresholds(tree: CfgNode) -> Broken:
    """The rules that `TEST.THRESHOLD_*` break; found out after a training they would be too late."""
    for key, value in (
        ("TEST.THRESHOLD_IOU", tree.TEST.THRESHOLD_IOU),
        ("TEST.THRESHOLD_BETA", tree.TEST.THRESHOLD_BETA),
    ):
        if value == 0:
            yield (key,), f"{key} is 0.0; it must be above 0"


def augmentation(tree: CfgNode) -> Broken:
    """The rules that `TEST.BBOX_AUG` breaks."""
    ranges = "TEST.BBOX_AUG.SCALE_RANGES"
    if tree.TEST.BBOX_AUG.SCALE_RANGES:
        advice = "write one (low, high) for each scale, or () for none"
        yield from equal_lengths(tree, ranges, "TEST.BBOX_AUG.SCALES", advice)
    for low, high in tree.TEST.BBOX_AUG.SCALE_RANGES:
        if low >= high:
            yield (ranges,), f"{ranges} has ({low}, {high}); low must be below high"
    if tree.TEST.BBOX_AUG.ENABLED and not tree.TEST.BBOX_AUG.VOTE and tree.TEST.SCORE_VOTING:
        yield (
            ("TEST.SCORE_VOTING", "TEST.BBOX_AUG.VOTE", "TEST.BBOX_AUG.ENABLED"),
            "TEST.SCORE_VOTING follows the suppression of each pass, but without TEST.BBOX_AUG.VOTE the passes are "
            "merged before any; write TEST.BBOX_AUG.VOTE: True or TEST.SCORE_VOTING: 0.0",
        )


def tiling(tree: CfgNode) -> Broken:
    """The rules that `TILING` breaks."""
    size, overlap = tree.TILING.SIZE, tree.TILING.OVERLAP
    if 0 < size < MIN_TILE:
        yield ("TILING.SIZE",), f"TILING.SIZE is {size}; it must be {MIN_TILE} pixels or more, 0 or -1 for no tiles"
    elif size > 0 and overlap > size // 2:
        keys = ("TILING.OVERLAP", "TILING.SIZE")
        advice = (
            f"it must be at most half of TILING.SIZE, {size // 2}: beyond that every object is in four tiles or more"
        )
        yield keys, f"TILING.OVERLAP is {overlap}; {advice}"


def data_sets(tree: CfgNode) -> Broken:
    """The rules that `DATASETS` breaks."""
    for name, fields in tree.DATASETS.CATALOG.items():
        key = f"DATASETS.CATALOG.{name}"
        for field, meaning in (("img_dir", "the folder of its images"), ("ann_file", "its annotations")):
            if field not in fields:
                yield (key,), f"{key} lacks {field}, {meaning}"
    for key, names in (
        ("DATASETS.TEST", tree.DATASETS.TEST),
        ("DATASETS.VAL", tree.DATASETS.VAL),
        ("DATASETS.CLASSES", [normal_name(name) for name in tree.DATASETS.CLASSES]),
    ):
        repeated = sorted({each for each in names if names.count(each) > 1})
        if repeated:
            yield (key,), f"{key} names {repeated[0]} twice; keep one"
    yield from _class_map(tree)


def _class_map(tree: CfgNode) -> Broken:
    seen: dict[str, str] = {}
    for name in tree.DATASETS.CLASS_MAP:
        other = seen.setdefault(normal_name(name), name)
        if other != name:
            keys = (f"DATASETS.CLASS_MAP.{other}", f"DATASETS.CLASS_MAP.{name}")
            yield keys, f"DATASETS.CLASS_MAP has the class {normal_name(name)} twice, written in two ways; keep one"


def sampling(tree: CfgNode) -> Broken:
    """The rules about how often images are used."""
    key, share = "DATALOADER.EMPTY_SHARE", tree.DATALOADER.EMPTY_SHARE
    if -1 < share < 0:
        yield (key,), f"{key} is {share}; it must be from 0 to 0.95, or -1 for off"
    if share > 0 and tree.DATALOADER.FILTER_EMPTY:
        yield (
            (key, "DATALOADER.FILTER_EMPTY"),
            f"DATALOADER.FILTER_EMPTY leaves out the images that {key} {share} asks for; write FILTER_EMPTY: False",
        )
