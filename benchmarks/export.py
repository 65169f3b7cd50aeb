"""Time per image of a detector in torch and of the files exported from it, side by side, and the AP of each.

    python benchmarks/export.py --size 480 640
    python benchmarks/export.py --model configs/bccd/atss_R_18_bccd.yaml --weights W --images 50 DATASETS.ROOT D

All runners of a model take turns on one image, from bytes to detections, so that whatever else the machine does hits
all of them; a ratio is the median of those of the turns. Without `--weights` the weights are random (they cost the
same, but hardly anything is found), int8 is calibrated on noise, and there is no AP. With them, int8 is calibrated on
DATASETS.TRAIN and AP is that of the first `--images` images of DATASETS.TEST.

The exit code is 1 if a target is missed: OpenVINO in bf16 (where the processor has it) at least 5 times as fast as
plain torch, in int8 at least 8 times; int8 within 0.01 AP.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from tabulate import tabulate

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
MODELS = (
    CONFIGS / "bccd" / "atss_R_18_bccd.yaml",
    CONFIGS / "atss" / "atss_R_50_FPN_1x.yaml",
    CONFIGS / "cascade" / "cascade_R_50_FPN_1x.yaml",
)
FILES = {
    "ONNX Runtime fp32": ("onnx", "fp32"),
    "ONNX Runtime int8": ("onnx", "int8"),
    "OpenVINO fp32": ("openvino", "fp32"),
    "OpenVINO bf16": ("openvino", "bf16"),
    "OpenVINO int8": ("openvino", "int8"),
}
PLAIN, FAST = "torch fp32", "torch fast path"
FASTER = {"OpenVINO bf16": 5.0, "OpenVINO int8": 8.0}
LARGEST_DROP = 0.01
