"""cfg -> an estimate of the memory, time and disk space of a training."""

from __future__ import annotations

import time
from math import ceil

import torch
from torch import nn
from yacs.config import CfgNode

from engine.analysis.complexity import complexity
from engine.assembly.device import build_device
from engine.assembly.sizes import train_limits
from engine.assembly.solver import run_length
from engine.data.doctor.case import Cost
from engine.device import is_native

_TRACED = 256  # pixels of the short side of the image that is traced; cost grows with the pixels
_KEPT = 2.5  # of each output of a convolution: itself, the norm's and the activation's, partly in place
_BACKWARD = 2  # the gradients of inputs and of weights cost as much as the forward pass each
_STATES = {"SGD": 1, "Adam": 2, "AdamW": 2, "NAdam": 2, "RAdam": 2, "Adamax": 2}  # numbers kept per weight


def estimate_cost(cfg: CfgNode, model: nn.Module, num_images: int) -> Cost:
    """What the training of `model`, which is on the CPU, will need on the device of `cfg`."""
    device = build_device(cfg)
    sizes, long = train_limits(cfg)
    short = max(sizes)
    long = min(long, round(short * 4 / 3))  # of most cameras
    traced = (_TRACED, _TRACED)
    pixels = short * long / (traced[0] * traced[1])
    whole = complexity(model, traced, channels=cfg.INPUT.CHANNELS).modules[0]
    bytes_each = 2 if cfg.SOLVER.AMP.ENABLED else 4
    in_pass = ceil(cfg.SOLVER.IMS_PER_BATCH / cfg.SOLVER.ACCUMULATE)
    states = _STATES.get(cfg.SOLVER.OPTIMIZER, 2)
    fixed = 4 * (whole.parameters * (1 + bool(cfg.SOLVER.EMA_DECAY)) + whole.trainable * (1 + states))
    memory = fixed + in_pass * pixels * whole.activations * bytes_each * _KEPT
    length = run_length(cfg, num_images)
    half = getattr(torch, cfg.SOLVER.AMP.DTYPE) if cfg.SOLVER.AMP.ENABLED else None
    rate = _rate(device, half if half and is_native(device, half) else None)
    seconds = length.max_iter * cfg.SOLVER.IMS_PER_BATCH * pixels * whole.operations * (1 + _BACKWARD) / rate
    checkpoint = 4 * (whole.parameters * (1 + bool(cfg.SOLVER.EMA_DECAY)) + whole.trainable * states)
    numbered = length.max_iter // cfg.SOLVER.CHECKPOINT_PERIOD if cfg.SOLVER.CHECKPOINT_PERIOD else 0
    if cfg.SOLVER.KEEP_CHECKPOINTS:
        numbered = min(numbered, cfg.SOLVER.KEEP_CHECKPOINTS)
    kept = numbered + 1 + bool(cfg.DATASETS.VAL)
    text = (
        f"from {whole.operations * pixels / 1e9:.3g} GMAC and {whole.activations * pixels / 1e6:.3g} M activations per "
        f"image of {short} x {long} (as tools/model_complexity.py counts them), three times that for a forward and a "
        f"backward pass, at the {rate / 1e9:.3g} GMAC/s that a convolution reaches here, images not read; {kept} "
        f"checkpoints of {checkpoint / 1e6:.3g} MB"
    )
    return Cost(int(memory), seconds, checkpoint * kept, text)


@torch.no_grad()
def _rate(device: torch.device, half: torch.dtype | None) -> float:
    """Multiply-adds per second of a usual convolution; `half` is the type of mixed precision."""
    conv = nn.Conv2d(64, 64, 3, padding=1).to(device)
    images = torch.zeros(1, 64, 80, 80, device=device)
    images, conv = (images, conv) if half is None else (images.to(half), conv.to(half))
    conv(images)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(4):
            conv(images)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, (time.perf_counter() - start) / 4)
    return 64 * 64 * 9 * 80 * 80 / best
