"""Mixed precision: which type the forward pass computes in, and the loss scale that float16 needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Precision:
    """float32, bfloat16 or float16 on one device.

    Args:
        device: where the model lives.
        dtype: None computes in float32.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.device, self.dtype = device, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and its history; empty where no scale is used."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a loss scale up again; an empty `state` (a run without one) leaves the present scale."""
        if state:
            self.scaler.load_state_dict(state)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, model: nn.Module, clip_norm: float) -> Tensor | None:
        """Backward pass, clipping to `clip_norm` (0: none) and update; returns the norm before clipping."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        norm = None
        if clip_norm > 0:
            self.scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm
