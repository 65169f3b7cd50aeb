"""A small random model with Chinese class names, which finds a handful of boxes in any picture."""

from __future__ import annotations

from pathlib import Path

import torch

from engine import build_model
from engine.checkpoint import save
from engine.checkpoint.weights import FORMAT
from engine.config import load_config

NAMES = ["破洞", "stain", "<b>scratch</b>"]
CONFIG = """\
MODEL:
  DEVICE: cpu
  WEIGHT: ""
  RPN_ONLY: True
  ATSS_ON: True
  PIXEL_CONVENTION: continuous
  BACKBONE: {CONV_BODY: R-18-FPN-RETINANET, FREEZE_CONV_BODY_AT: 0}
  RESNETS: {NORM: GN, STEM_OUT_CHANNELS: 32, RES2_OUT_CHANNELS: 32, BACKBONE_OUT_CHANNELS: 32}
  RETINANET: {USE_C5: False}
  ATSS: {NUM_CLASSES: 4, NUM_CONVS: 1, PRIOR_PROB: 0.1, PRE_NMS_TOP_N: 50}
INPUT: {MIN_SIZE_TEST: 96, MAX_SIZE_TEST: 160}
DATALOADER: {SIZE_DIVISIBILITY: 32}
TEST: {DETECTIONS_PER_IMG: 20}
"""


def write_config(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(CONFIG)
    return path


def write_model(config: Path, path: Path, seed: int = 0) -> Path:
    """Weights whose scores lie around the thresholds stored with them."""
    torch.manual_seed(seed)
    model = build_model(load_config(config), NAMES)
    state = model.state_dict()
    for name, tensor in state.items():
        if "cls_logits.weight" in name:
            tensor.normal_(std=0.3)
    thresholds = {"classes": {name: {"threshold": 0.7 + 0.01 * k} for k, name in enumerate(NAMES)}}
    save(path, {"format": FORMAT, "model": state, "class_names": NAMES, "thresholds": thresholds})
    return path
