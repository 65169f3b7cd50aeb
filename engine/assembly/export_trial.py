"""cfg -> the trial of a file that was just exported, before it takes its place."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from yacs.config import CfgNode

from engine.assembly.detector import Predictor, usable_thresholds
from engine.assembly.export_check import ExportCheck, Outcome, check_table
from engine.errors import InputError
from engine.log import get_logger
from engine.runtime.card import ModelCard
from engine.runtime.card_file import is_exported, write_card
from engine.runtime.detector import Detector

FEW = 4
"""Images that show whether a file of floats does what its model does."""
NOISE_SIZE = (240, 320)


def try_file(
    cfg: CfgNode, weights: str, path: Path, card: ModelCard, images: Path | None, max_drop: float | None, precision: str
) -> None:
    """Compare what the file at `path` finds with what its model finds, and say so in a table.

    A file of less than float32, or one for which `max_drop` is given, is tested on all images of the test sets, and its
    thresholds become its own; any other on a few images, or on noise if there are none. So is one of fp16 or bf16 whose
    test sets are elsewhere. Files of torch are not tried.

    Raises:
        InputError: it finds too little of the same; the line gives the figures.
    """
    if not is_exported(path):
        return
    model, exported = Predictor(cfg, weights, threshold=0.0), Detector(path, threshold=0.0)
    is_needed = precision == "int8" or max_drop is not None
    check = _all(cfg, model, images, is_needed) if is_needed or precision != "fp32" else None
    if check:
        outcomes = check(exported)
    else:
        # The AP of a few images says nothing.
        outcomes = [replace(each, metrics=[]) for each in _on_few(cfg, model, exported, images)]
    if outcomes:
        get_logger(__name__).info("the model and the file\n\n%s\n", check_table(outcomes, ("model", path.name)))
    for outcome in outcomes:
        if reason := outcome.refusal(max_drop):
            advice = "; keep more of it in float (--keep-float), or use bf16" if precision == "int8" else ""
            raise InputError(f"not exported: {reason}{advice}")
    if check and outcomes and outcomes[0].thresholds:
        found = usable_thresholds(outcomes[0].thresholds)
        figures = {outcome.source: outcome.metrics[1]["AP"] for outcome in outcomes if outcome.metrics}
        write_card(path, replace(card, thresholds=found, facts={**card.facts, "AP": figures}))


def _all(cfg: CfgNode, model: Predictor, images: Path | None, is_needed: bool) -> ExportCheck | None:
    """What `model` finds on the test sets, or in all of `images` where these cannot be used; None if neither can."""
    try:
        if cfg.DATASETS.TEST or images or is_needed:
            return ExportCheck(cfg, model, images)
    except InputError as error:
        if is_needed and images is None:
            raise
        get_logger(__name__).warning("not tested on %s: %s", ", ".join(cfg.DATASETS.TEST), error)
    return ExportCheck(_without_test_sets(cfg), model, images) if images else None


def _on_few(cfg: CfgNode, model: Predictor, exported: Detector, images: Path | None) -> list[Outcome]:
    """The check on a few of `images`, else of the test sets, else on noise: data may be elsewhere."""
    if images is None and cfg.DATASETS.TEST:
        with suppress(InputError):
            return ExportCheck(cfg, model, limit=FEW)(exported)
    cfg = _without_test_sets(cfg)
    if images is not None:
        return ExportCheck(cfg, model, images, FEW)(exported)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "noise"
        place.mkdir()
        for number in range(2):
            np.save(place / f"{number}.npy", _noise(exported.card, number))
        return ExportCheck(cfg, model, place / "*.npy")(exported)


def _noise(card: ModelCard, seed: int) -> np.ndarray:
    """An image (H, W, C) for the model of `card`, uint8, or float32 over its range of values."""
    size = card.shape.image_size or card.shape.input_size or NOISE_SIZE
    low, high = card.images.value_range or (0, 256)
    noise = np.random.default_rng(seed).uniform(low, high, (*size, card.images.channels))
    return noise.astype(np.float32 if card.images.value_range else np.uint8)


def _without_test_sets(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = ()
    cfg.freeze()
    return cfg
