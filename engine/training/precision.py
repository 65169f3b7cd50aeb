"""Mixed precision: the type of the forward pass, and the loss scale that float16 needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Clipping(NamedTuple):
    """Limits of the gradients; 0 means no limit. `value` clips each number, then `norm` scales them all together."""

    norm: float = 0.0
    value: float = 0.0


NO_CLIPPING = Clipping()


class Precision:
    """bfloat16, float16 or (with `dtype` None) float32 on the device of the model."""

    def __init__(self, device: torch.device, dtype: torch.dtype | None = None) -> None:
        self.device, self.dtype = device, dtype
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and its history; empty if no scale is used."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a loss scale; an empty `state` (of a run without one) keeps the current scale."""
        if state:
            self.scaler.load_state_dict(state)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled if a scale is used, to the existing ones."""
        self.scaler.scale(loss).backward()

    def clip(self, optimizer: torch.optim.Optimizer, clipping: Clipping = NO_CLIPPING) -> Tensor:
        """Divide the gradients by the loss scale and clip them; returns their norm before clipping."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.scaler.unscale_(optimizer)
        gradients = [each.grad for each in parameters if each.grad is not None]
        norm = left = nn.utils.get_total_norm(gradients)
        if clipping.value > 0:
            nn.utils.clip_grad_value_(parameters, clipping.value)
            left = nn.utils.get_total_norm(gradients)  # the limit on the norm applies after that on values
        if clipping.norm > 0:
            nn.utils.clip_grads_with_norm_(parameters, clipping.norm, left)
        return norm

    @property
    def skips_overflows(self) -> bool:
        """Whether `step` skips gradients that are not finite, which a loss scale can cause."""
        return self.scaler.is_enabled()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of the optimizer with the gradients after `clip`."""
        self.scaler.step(optimizer)
        self.scaler.update()
