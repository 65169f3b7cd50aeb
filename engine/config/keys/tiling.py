"""Keys of tiling: training and testing on pieces of large images."""

from __future__ import annotations

from engine.config.declaration import key

MAX_TILE = 16_384
"""Pixels: images smaller than a tile are filled up to one, which takes 0.8 GB."""

GROUPS = {
    "TILING": "(ours) Train and test on square tiles of large images. The block is stored in the checkpoint, so that "
    "testing, the demo and Predictor cut the same tiles."
}

# One key after another as in a table, so that a search for a key shows its default too.
# fmt: off
KEYS = [
    key("TILING.SIZE", 0, "Side of a tile in pixels of the image; INPUT sizes then are those of the tiles. 0: no tiles "
        "unless the weights were trained on tiles; -1: no tiles in any case.", ours=True, between=(-1, MAX_TILE)),
    key("TILING.OVERLAP", -1, "Pixels that neighbouring tiles share. Objects of up to three quarters of it are seen "
        "whole by some tile. -1: a quarter of SIZE.", ours=True, between=(-1, MAX_TILE)),
    key("TILING.MIN_VISIBILITY", 0.5, "Boxes of which less than this share of the area lies in a tile are regions to "
        "ignore in it, neither positive nor negative.", ours=True, between=(0, 1)),
    key("TILING.KEEP_FULL", False, "Also train and test on the whole picture, scaled down to the INPUT sizes, for "
        "objects that are too large for the overlap of the tiles.", ours=True),
    key("TILING.KEPT_MB", 600, "Megabytes of decoded images that each loader worker keeps, so that an image need not "
        "be decoded for every tile. In training, tiles of as many images as fit are mixed.", ours=True,
        between=(0, 10**6)),
    key("TILING.MERGE_TYPE", "nms", "How detections of overlapping tiles become one, see TEST.BBOX_AUG.MERGE_TYPE.",
        ours=True, words=("nms", "vote", "soft-vote"), registry="engine.layers.voting.MERGERS"),
    key("TILING.MERGE_BY", "iou", "Which detections of a class are one object: iou, those whose intersection over "
        "union is large; ios, those whose intersection over the smaller box is, so that a part joins its whole.",
        ours=True, words=("iou", "ios")),
    key("TILING.MERGE_THRESH", 0.5, "Lowest overlap, measured by MERGE_BY, of detections that are one object.",
        ours=True, between=(0.01, 1)),
]
# fmt: on
