"""The configuration of a command that detects, from a YAML file or an exported file; torch is not imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from engine.config import get_cfg, load_config
from engine.errors import InputError
from engine.runtime.card import ModelCard
from engine.runtime.card_file import SUFFIXES, is_exported, read_card


def run_config(config_file: Path | None, weights: str, opts: Sequence[Any] = ()) -> CfgNode:
    """The frozen configuration of `config_file`, or, without one, what the exported file `weights` was made with.

    Args:
        opts: KEY VALUE pairs on top.

    Raises:
        InputError: the file or a key is wrong, or `weights` is a checkpoint, which needs a configuration.
    """
    if config_file is not None:
        return load_config(config_file, opts)
    if not is_exported(weights):
        raise InputError(
            f"--config-file is missing: {weights} needs the configuration of its training; only exported files "
            f"({', '.join(SUFFIXES)}) do without"
        )
    return config_of(read_card(Path(weights)), opts)


def config_of(card: ModelCard, opts: Sequence[Any] = ()) -> CfgNode:
    """The configuration of a file with `card`; `MODEL.DEVICE` is the CPU, as of `Detector`."""
    images = card.images
    keys = {
        "MODEL.DEVICE": "cpu",
        "INPUT.MIN_SIZE_TEST": images.min_size,
        "INPUT.MAX_SIZE_TEST": images.max_size,
        "INPUT.ORIENTATION": images.orientation,
        **card_conventions(card),
        # As many as channels; the network itself normalises.
        "INPUT.PIXEL_MEAN": (0.0,) * images.channels,
        "INPUT.PIXEL_STD": (1.0,) * images.channels,
    }
    tree = get_cfg()
    tree.merge_from_list([word for pair in keys.items() for word in pair])
    tree.merge_from_list(opts)
    tree.freeze()
    return tree


def card_conventions(card: ModelCard) -> dict[str, Any]:
    """Keys and values that a checkpoint would hold as its conventions, see `checkpoint.weights.WeightFile`."""
    images, tiles = card.images, card.tiles
    conventions: dict[str, Any] = {
        "INPUT.CHANNELS": images.channels,
        "MODEL.PIXEL_CONVENTION": "inclusive" if images.box_extent else "continuous",
    }
    if images.value_range is not None:
        conventions["INPUT.VALUE_RANGE"] = images.value_range
    if tiles is not None:
        conventions |= {"TILING.SIZE": tiles.size, "TILING.OVERLAP": tiles.overlap, "TILING.KEEP_FULL": tiles.keep_full}
    return conventions
