"""cfg -> how images are cut into tiles, in training and in testing, and what of it a checkpoint holds."""

from __future__ import annotations

from functools import partial
from typing import Any

from yacs.config import CfgNode

from engine.assembly.sizes import size_key, train_limits
from engine.data.dataset import LabelledImages
from engine.data.tiled_dataset import TiledDataset
from engine.data.tiles import Tiling
from engine.distributed import broadcast_object, is_main
from engine.layers.voting import MERGERS, Merged
from engine.log import get_logger, warn_once
from engine.registry import lookup

TILING = "TILING."
"""How the conventions of checkpoints that were trained on tiles begin."""


def is_tiled(cfg: CfgNode) -> bool:
    return cfg.TILING.SIZE > 0


def build_tiling(cfg: CfgNode) -> Tiling:
    """How `TILING` cuts images; only if `is_tiled`."""
    size, overlap = cfg.TILING.SIZE, cfg.TILING.OVERLAP
    return Tiling(size, size // 4 if overlap < 0 else overlap, cfg.TILING.MIN_VISIBILITY, cfg.TILING.KEEP_FULL)


def build_fill(cfg: CfgNode) -> tuple[float, ...]:
    """What images smaller than a tile are filled up with, as they are read: the mean, which is 0 for the network."""
    mean = cfg.INPUT.PIXEL_MEAN
    if cfg.INPUT.TO_BGR255:
        return tuple(mean)
    order = {3: (2, 1, 0), 4: (2, 1, 0, 3)}.get(len(mean), range(len(mean)))  # see `Normalize`
    return tuple(255.0 * mean[channel] for channel in order)


def build_tile_merge(cfg: CfgNode, score_thresh: float) -> partial[Merged]:
    """The rule of `TILING.MERGE_TYPE` with its parameters bound."""
    match = {"iou_thresh": cfg.TILING.MERGE_THRESH, "over_smaller": cfg.TILING.MERGE_BY == "ios"}
    parameters = {"nms": match, "vote": match, "soft-vote": {**match, "score_thresh": score_thresh}}
    name = cfg.TILING.MERGE_TYPE
    return partial(lookup(MERGERS, name, "TILING.MERGE_TYPE"), **parameters.get(name, {}))


def tiling_conventions(cfg: CfgNode) -> dict[str, Any]:
    """The block by full key, for a checkpoint; {} without tiles."""
    if not is_tiled(cfg):
        return {}
    return {
        "TILING.SIZE": cfg.TILING.SIZE,
        "TILING.OVERLAP": cfg.TILING.OVERLAP,
        "TILING.MIN_VISIBILITY": cfg.TILING.MIN_VISIBILITY,
        "TILING.KEEP_FULL": cfg.TILING.KEEP_FULL,
        "TILING.MERGE_TYPE": cfg.TILING.MERGE_TYPE,
        "TILING.MERGE_BY": cfg.TILING.MERGE_BY,
        "TILING.MERGE_THRESH": cfg.TILING.MERGE_THRESH,
    }


def with_tiles(cfg: CfgNode, dataset: LabelledImages, filter_empty: bool = False) -> LabelledImages:
    """`dataset` cut into tiles if `TILING` says so, the same ones on all processes."""
    if not is_tiled(cfg):
        return dataset
    # Measured by one process: a file that only some of them can read must not give them different tiles.
    sizes = broadcast_object(dataset.measured_sizes() if is_main() else None)
    return TiledDataset(dataset, build_tiling(cfg), build_fill(cfg), sizes, filter_empty, cfg.TILING.KEPT_MB << 20)


def report_tiles(cfg: CfgNode, dataset: LabelledImages) -> None:
    """Log the tile plan of a training set that is cut into tiles."""
    if isinstance(dataset, TiledDataset) and is_main():
        tiling, plan = dataset.tiling, dataset.plan()
        logger = get_logger(__name__)
        logger.info("TILING: %d x %d pixels, %d shared: %s", tiling.size, tiling.size, tiling.overlap, plan.line())
        if fault := plan.fault():
            warn_once(f"TILING: {fault}")
        sizes, max_size = train_limits(cfg)
        scales = sorted({min(size, max_size) / tiling.size for size in sizes})
        if scales != [1.0]:
            shown = " to ".join(f"{scale:.3g}" for scale in sorted({scales[0], scales[-1]}))
            logger.info("TILING: tiles are scaled by %s (%s over TILING.SIZE)", shown, size_key(cfg))
