"""Checkpoints: safe atomic files, weights of any known format, and reports of what was loaded."""

from engine.checkpoint.checkpointer import Checkpointer
from engine.checkpoint.io import load, save
from engine.checkpoint.weights import check_storable, load_weights, read_weights, store_thresholds

__all__ = ["Checkpointer", "check_storable", "load", "load_weights", "read_weights", "save", "store_thresholds"]
