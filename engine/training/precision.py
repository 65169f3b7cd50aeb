"""Mixed precision: which type the forward pass computes in, and the loss scale that float16 needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Clipping(NamedTuple):
    """Limits of the gradients; 0 is none. `value` cuts each number, then `norm` scales all of them together."""

    norm: float = 0.0
    value: float = 0.0


NO_CLIPPING = Clipping()


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

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled where a scale is used, to those there are."""
        self.scaler.scale(loss).backward()

    def clip(self, optimizer: torch.optim.Optimizer, clipping: Clipping = NO_CLIPPING) -> Tensor:
        """Take the loss scale out of the gradients and clip them; returns their norm before."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.scaler.unscale_(optimizer)
        gradients = [each.grad for each in parameters if each.grad is not None]
        norm = left = nn.utils.get_total_norm(gradients)
        if clipping.value > 0:
            nn.utils.clip_grad_value_(parameters, clipping.value)
            left = nn.utils.get_total_norm(gradients)
        if clipping.norm > 0:
            nn.utils.clip_grads_with_norm_(parameters, clipping.norm, left)
        return norm

    @property
    def skips_overflows(self) -> bool:
        """Whether `step` leaves the weights alone where gradients are not finite, as a loss scale may make them."""
        return self.scaler.is_enabled()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of the optimizer with the gradients that `clip` left."""
        self.scaler.step(optimizer)
        self.scaler.update()


def is_native(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `device` has arithmetic of this half-precision type.

    A CPU without it (most before 2023) emulates it: convolutions take thirty times as long as in float32.
    """
    if device.type != "cpu":
        return True
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    supported = getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", None)  # of oneDNN; not built everywhere
    return supported is None or supported()
