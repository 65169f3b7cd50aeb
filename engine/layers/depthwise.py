"""Depthwise convolution, with gradients that are fast in bfloat16 on a CPU.

oneDNN has no fast bfloat16 kernels for two of its gradients and falls back to plain loops: that of the input at strides
above 1, and that of the weights of kernels above 3x3 (benchmarks/depthwise.py: 20 to 80 ms where others take 1).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.layers.same_padding import padded

_FAST_KERNEL = 3
"""The largest side of a kernel for whose weights oneDNN has a fast gradient."""


class DepthwiseConv2d(nn.Conv2d):
    """A convolution with a kernel of its own per channel; the names of its parameters are those of `nn.Conv2d`.

    The numbers are those of `nn.Conv2d`; in bfloat16 on a CPU up to rounding, and without gradients of gradients.

    Args:
        kernel_size: odd.
        same: padding as in TensorFlow (see `same_padding`); else `kernel_size // 2` on each side.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, bias: bool = True, same: bool = False) -> None:
        padding = 0 if same else kernel_size // 2
        super().__init__(channels, channels, kernel_size, stride, padding, groups=channels, bias=bias)
        self.same = same

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))."""
        x, padding = padded(x, self) if self.same else (x, self.padding)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if x.device.type != "cpu" or dtype != torch.bfloat16 or torch.compiler.is_compiling() or not self._is_slow():
            return F.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)
        bias = None if self.bias is None else self.bias.to(dtype)
        return _Bfloat16Depthwise.apply(x.to(dtype), self.weight.to(dtype), bias, self.stride, padding)

    def _is_slow(self) -> bool:
        return torch.is_grad_enabled() and (max(self.stride) > 1 or max(self.kernel_size) > _FAST_KERNEL)


class _Bfloat16Depthwise(torch.autograd.Function):
    """`F.conv2d` of bfloat16 tensors, groups = channels, with gradients by `_input_grad` and `_weight_grad`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias, *_ = ctx.needs_input_grad
        grad = grad.contiguous(memory_format=torch.channels_last)
        return (
            _input_grad(grad, x, weight, ctx.stride, ctx.padding) if wants_x else None,
            _weight_grad(grad, x, weight, ctx.stride, ctx.padding) if wants_weight else None,
            grad.sum((0, 2, 3)) if wants_bias else None,
            None,
            None,
        )


def _input_grad(grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Gradient (N, C, H, W) of the input, in float32 inside if strided."""
    if max(stride) == 1:
        return _backward(grad, x, weight, stride, padding, (True, False, False))[0]
    # Of x only shape and layout are read.
    like_x = torch.empty_like(x, dtype=torch.float32, memory_format=torch.channels_last)
    wide = _backward(grad.float(), like_x, weight.float(), stride, padding, (True, False, False))[0]
    return wide.to(x.dtype)


def _weight_grad(grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Gradient (C, 1, k, k) of the weights; that of a large kernel is put together from those of 3x3 kernels.

    Element (i, j) is the sum of grad times the padded map from row i and column j on, at the stride. The stride has no
    effect on an output of a single cell, where oneDNN leaves elements of a strided kernel's gradient uninitialised
    (observed with torch 2.14).
    """
    x = x.contiguous(memory_format=torch.channels_last)
    is_single = grad.shape[2:] == (1, 1)
    stride = (1, 1) if is_single else stride
    side = min(_FAST_KERNEL, *weight.shape[2:])
    if max(weight.shape[2:]) <= side and not is_single:
        return _backward(grad, x, weight, stride, padding, (False, True, False))[1]
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    height, width = ((cells - 1) * step + side for cells, step in zip(grad.shape[2:], stride, strict=True))
    result, part = torch.empty_like(weight), torch.empty_like(weight[:, :, :side, :side])
    rows, columns = (sorted({*range(0, k - side, side), k - side}) for k in weight.shape[2:])
    for i in rows:
        for j in columns:
            crop = x[:, :, i : i + height, j : j + width].contiguous(memory_format=torch.channels_last)
            result[:, :, i : i + side, j : j + side] = _backward(
                grad, crop, part, stride, (0, 0), (False, True, False)
            )[1]
    return result


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, ...]:
    """Gradients of a depthwise convolution for its input, weights and bias."""
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )
