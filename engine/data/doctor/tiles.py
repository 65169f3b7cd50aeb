"""The tiles that images are cut into."""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.doctor.case import CHECKS, Case
from engine.data.doctor.findings import Finding, declare

PLAN = declare(
    "TILE_PLAN",
    "note",
    "How many tiles `TILING` makes of a data set.",
    "Nothing; with very many empty tiles set DATALOADER.EMPTY_SHARE or FILTER_EMPTY.",
)
UNSEEN = declare(
    "TILE_CUTS_BOX",
    "warning",
    "A box is in no tile with enough of its area, so it is never trained on.",
    "Raise TILING.OVERLAP or TILING.SIZE, or set TILING.KEEP_FULL True.",
)
USELESS = declare(
    "TILE_LARGER_THAN_IMAGES",
    "warning",
    "No image is larger than a tile: `TILING` only pads them.",
    "Remove the block, or lower TILING.SIZE.",
)


@CHECKS.register("tiles")
def check_tiles(case: Case) -> Iterator[Finding]:
    """The plan of the tiles of each training set."""
    for name, plan in case.samples.tiles.items() if case.samples else ():
        yield PLAN.finding(plan.line(), plan.num_tiles, name)
        if fault := plan.fault():
            yield UNSEEN.finding(fault, plan.num_unseen, name)
        if plan.most <= 1 and plan.num_images:
            yield USELESS.finding("none of its images is larger than a tile", plan.num_images, name)
