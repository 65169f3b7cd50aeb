"""Checkpoints: safe atomic files, weights of any known format, and reports of what was loaded."""

from engine.checkpoint.checkpointer import Checkpointer
from engine.checkpoint.heads import keep_first_classes
from engine.checkpoint.io import load, save
from engine.checkpoint.report import LoadReport
from engine.checkpoint.sources import resolve
from engine.checkpoint.weights import (
    FORMAT,
    SURGERIES,
    WeightFile,
    check_storable,
    load_weights,
    read_weights,
    store_thresholds,
)

__all__ = [
    "FORMAT",
    "SURGERIES",
    "Checkpointer",
    "LoadReport",
    "WeightFile",
    "check_storable",
    "keep_first_classes",
    "load",
    "load_weights",
    "read_weights",
    "resolve",
    "save",
    "store_thresholds",
]
