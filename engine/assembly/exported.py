"""cfg -> an exported file in the place of a checkpoint; `cfg` is made to follow the card of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from engine.assembly.data import test_batch_size
from engine.assembly.run_config import card_conventions
from engine.assembly.tiling import build_tiling, is_tiled
from engine.assembly.weights import follow_conventions
from engine.checkpoint import sources
from engine.checkpoint.weights import WeightFile
from engine.data.tiles import Tiling
from engine.errors import InputError
from engine.inference.exported import ExportedDetector
from engine.log import get_logger
from engine.runtime.card import ModelCard, TileRule
from engine.runtime.card_file import read_card
from engine.runtime.detector import Detector


def open_exported(cfg: CfgNode, weights: str) -> tuple[ExportedDetector, WeightFile]:
    """The network of an exported file, and what a checkpoint would say about it.

    It runs on `MODEL.DEVICE` where its library can, else on the CPU; what surrounds it is on the CPU.

    Raises:
        InputError: the file cannot be used, or `cfg` asks for what was fixed when it was exported.
    """
    path = Path(sources.resolve(weights))
    card = read_card(path)
    _check_fixed(cfg, card, weights)
    file = WeightFile({}, list(card.class_names), _thresholds(card), weights, "engine", _conventions(cfg, card))
    follow_conventions(cfg, file)
    detector = ExportedDetector(
        Detector(path, device=_device(cfg, path), threads=torch.get_num_threads(), batch_size=test_batch_size(cfg))
    )
    _set(cfg, {"MODEL.DEVICE": "cpu"})
    return detector, file


def _check_fixed(cfg: CfgNode, card: ModelCard, source: str) -> None:
    """Refuse keys that only a checkpoint can follow."""
    if cfg.TEST.BBOX_AUG.ENABLED:
        raise InputError(
            f"TEST.BBOX_AUG.ENABLED: {source} is an exported file, which has no test-time augmentation; set it to "
            "False, or test the checkpoint"
        )
    ours = {"INPUT.MIN_SIZE_TEST": cfg.INPUT.MIN_SIZE_TEST, "INPUT.MAX_SIZE_TEST": cfg.INPUT.MAX_SIZE_TEST}
    theirs = card.images.min_size, card.images.max_size
    for (key, value), fixed in zip(ours.items(), theirs, strict=True):
        if value != fixed:
            raise InputError(f"{key} is {value}, but {source} was exported with {fixed}; set it, or export it again")
    tiles = build_tiling(cfg) if is_tiled(cfg) else None
    if tiles is not None and (card.tiles is None or not _is_same(tiles, card.tiles)):
        fixed = f"SIZE {card.tiles.size}, OVERLAP {card.tiles.overlap}" if card.tiles else "no tiles"
        raise InputError(
            f"TILING.SIZE {tiles.size}, OVERLAP {tiles.overlap}: {source} was exported with {fixed}; leave TILING out, "
            "or export it again"
        )


def _is_same(tiling: Tiling, rule: TileRule) -> bool:
    return (tiling.size, tiling.overlap, tiling.keep_full) == (rule.size, rule.overlap, rule.keep_full)


def _conventions(cfg: CfgNode, card: ModelCard) -> dict[str, Any]:
    """What `follow_conventions` sets in `cfg`; tiles of its own are those of the card, see `_check_fixed`."""
    is_set = is_tiled(cfg)
    return {key: value for key, value in card_conventions(card).items() if not (is_set and key.startswith("TILING"))}


def _thresholds(card: ModelCard) -> dict[str, Any]:
    """The object of `thresholds.json`, with a threshold for every class."""
    limits = {name: card.thresholds.get(name, card.default_threshold) for name in card.class_names}
    return {"classes": {name: {"threshold": limit} for name, limit in limits.items()}}


def _device(cfg: CfgNode, path: Path) -> str:
    """The device for `Detector`: `MODEL.DEVICE` if it is a GPU that ONNX Runtime can use."""
    device = cfg.MODEL.DEVICE
    if device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if path.suffix.lower() == ".onnx":
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            return device
    get_logger(__name__).warning("MODEL.DEVICE is %s, but %s runs on the CPU: its library has no CUDA", device, path)
    return "cpu"


def _set(cfg: CfgNode, values: dict[str, str]) -> None:
    was_frozen = cfg.is_frozen()
    cfg.defrost()
    cfg.merge_from_list([item for pair in values.items() for item in pair])
    if was_frozen:
        cfg.freeze()
