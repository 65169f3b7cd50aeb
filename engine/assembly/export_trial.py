"""cfg -> the trial of a file that was just exported, before it takes its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from yacs.config import CfgNode

from engine.assembly.detector import Predictor, usable_thresholds
from engine.assembly.export_check import ExportCheck, check_table
from engine.errors import InputError
from engine.export.onnx_writer import replace_onnx_card
from engine.export.openvino import replace_card
from engine.log import get_logger
from engine.runtime.card import ModelCard
from engine.runtime.detector import Detector

FEW = 4
"""Images that show whether a file of floats does what its model does."""
CARD_WRITERS = {".onnx": replace_onnx_card, ".xml": replace_card}
"""How a file gets another card, by its ending: the files that the runtime opens."""


def try_file(
    cfg: CfgNode, weights: str, path: Path, card: ModelCard, images: Path | None, max_drop: float | None, precision: str
) -> None:
    """Compare what the file at `path` finds with what its model finds, and say so in a table.

    A file of int8, or one for which `max_drop` is given, is tested on all images of the test sets, and its thresholds
    become its own; any other on a few images, or on noise if there are none. Files of torch are not tried.

    Raises:
        InputError: it finds too little of the same; the line gives the figures.
    """
    if path.suffix not in CARD_WRITERS:
        return
    is_thorough = precision == "int8" or max_drop is not None
    model, exported = Predictor(cfg, weights, threshold=0.0), Detector(path, threshold=0.0)
    try:
        outcomes = ExportCheck(cfg, model, images, 0 if is_thorough else FEW)(exported)
    except InputError:
        if is_thorough:
            raise
        outcomes = []  # the data sets need not be on the machine that exports
    if not is_thorough:
        outcomes = [replace(outcome, metrics=[]) for outcome in outcomes]  # the AP of a few images says nothing
    get_logger(__name__).info("%s", check_table(outcomes, ("model", path.name)) if outcomes else "not compared")
    for outcome in outcomes:
        if reason := outcome.refusal(max_drop):
            raise InputError(f"not exported: {reason}")
    if is_thorough and outcomes and outcomes[0].thresholds:
        found = usable_thresholds(outcomes[0].thresholds)
        CARD_WRITERS[path.suffix](path, replace(card, thresholds=found))
