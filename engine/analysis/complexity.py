"""The cost of a detector for one image: parameters, operations and activations of each of its modules.

Operations are counted by fvcore in a traced evaluation pass. The unit is one multiply-add (MAC); some papers count
it as 2 FLOPs. An activation is an element of the output of a convolution or matrix product (Radosavovic et al.,
2020).

Shapes: N images, C channels, T taps of a kernel, H W; P regions, S cells along a side of a region.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn

from engine.inference.loop import evaluation_mode
from engine.structures import padded_size

with warnings.catch_warnings():  # on import fvcore compiles losses in a deprecated way, of which torch warns
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
    from fvcore.nn.jit_handles import generic_activation_jit, get_shape

INTERPOLATION = 4
"""Multiply-adds per bilinear sample."""
ADAPTIVE_SAMPLES = 2
"""Samples per side of a cell assumed for RoIAlign if they depend on the size of the region."""


@dataclass(frozen=True)
class ModuleCost:
    """The cost of a module, including all modules inside it."""

    name: str  # dotted, "" for the whole model
    parameters: int
    trainable: int  # parameters
    operations: int  # multiply-adds
    activations: int  # see above


@dataclass(frozen=True)
class Complexity:
    """The cost of a forward pass for one image.

    Attributes:
        modules: in the order of the model; the first is the whole model.
        num_regions: regions in the second stage; None for a one-stage detector.
        uncounted: operators that are not counted, with the number of their calls.
    """

    modules: list[ModuleCost]
    num_regions: int | None
    uncounted: Mapping[str, int]


class _Traceable(nn.Module):
    """A detector as a function from a tensor to all its output tensors, since the tracer drops unused computations."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        (found,) = self.detector([image])
        return found.boxes, found.scores, found.labels


@torch.no_grad()
def complexity(
    model: nn.Module, image_size: tuple[int, int], device: torch.device | str = "cpu", channels: int = 3
) -> Complexity:
    """Trace `model`, which is on `device`, in evaluation mode for a random image of `image_size` (height, width)."""
    traceable = _Traceable(model)
    image = torch.randn(channels, *image_size, generator=torch.Generator().manual_seed(0)).to(device)
    operations = FlopCountAnalysis(traceable, (image,))
    operations.set_op_handle("torchvision::deform_conv2d", deform_conv2d_operations)
    operations.set_op_handle("torchvision::roi_align", roi_align_operations)
    operations.set_op_handle("aten::scaled_dot_product_attention", attention_operations)
    activations = ActivationCountAnalysis(traceable, (image,))
    activations.set_op_handle("torchvision::deform_conv2d", generic_activation_jit("deform_conv2d"))
    regions: list[int] = []
    pooler = getattr(getattr(model, "roi_heads", None), "pooler", nn.Identity())
    hook = pooler.register_forward_pre_hook(lambda _, inputs: regions.append(sum(map(len, inputs[1]))))
    for analysis in (operations, activations):  # what is not counted is reported in one line of ours
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with hook, evaluation_mode(model):
        counts = [analysis.by_module() for analysis in (operations, activations)]
        uncounted = Counter(operations.unsupported_ops())
    costs = []
    for name, module in model.named_modules():
        num_parameters = sum(p.numel() for p in module.parameters())
        num_trainable = sum(p.numel() for p in module.parameters() if p.requires_grad)
        of_module = (int(count[f"detector.{name}".rstrip(".")]) for count in counts)
        costs.append(ModuleCost(name, num_parameters, num_trainable, *of_module))
    return Complexity(costs, regions[0] if regions else None, uncounted)


def deform_conv2d_operations(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Multiply-adds of a deformable convolution: of the convolution, and for each of its inputs those of a bilinear
    sample and, if modulated, of the product with the mask. The convolution of the offsets is counted by itself.

    Args:
        inputs, outputs: values of `torchvision::deform_conv2d` in a traced graph.
    """
    images, weight = get_shape(inputs[0]), get_shape(inputs[1])  # (N, C, ...), (out, C / groups, kernel height, width)
    out = get_shape(outputs[0])  # (N, out, H, W)
    is_modulated = bool(inputs[-1].toIValue())
    positions = out[0] * out[2] * out[3]
    sampled = positions * images[1] * weight[2] * weight[3]
    return Counter(deform_conv2d=positions * math.prod(weight) + sampled * (INTERPOLATION + is_modulated))


def attention_operations(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Multiply-adds of attention in one operator: queries times keys, and the result times values.

    Args:
        inputs, outputs: values of `aten::scaled_dot_product_attention` in a traced graph.
    """
    queries, keys, values = map(get_shape, inputs[:3])  # (..., Q, C), (..., S, C), (..., S, V)
    return Counter(attention=math.prod(queries[:-1]) * keys[-2] * (queries[-1] + values[-1]))


def roi_align_operations(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Multiply-adds of RoIAlign: the bilinear samples in each of its P C S S cells; arguments as above."""
    sampling_ratio = inputs[5].toIValue()
    samples = sampling_ratio if sampling_ratio > 0 else ADAPTIVE_SAMPLES
    return Counter(roi_align=math.prod(get_shape(outputs[0])) * samples**2 * INTERPOLATION)


def complexity_table(cost: Complexity, depth: int) -> str:
    """The modules down to `depth` (0: only the whole model) that have any cost.

    Raises:
        ValueError: `depth` is negative.
    """
    if depth < 0:
        raise ValueError(f"depth must not be negative, but is {depth}")
    rows = []
    for module in cost.modules:
        module_depth = len(module.name.split(".")) if module.name else 0
        if module_depth <= depth and (module.parameters or module.operations or module.activations):
            figures = f"{module.operations / 1e9:.3f}", f"{module.activations / 1e6:.3f}"
            rows.append((module.name or "all", f"{module.parameters:,}", f"{module.trainable:,}", *figures))
    headers = ("module", "parameters", "trainable", "GMAC", "activations (M)")
    return tabulate(rows, headers, colalign=("left", *["right"] * 4), disable_numparse=True)


def complexity_report(
    cost: Complexity, image_size: tuple[int, int], size_divisibility: int, depth: int, is_adaptive: bool
) -> str:
    """The table, with the size of the image above and a note about the counting below.

    Args:
        image_size: height and width of the image.
        size_divisibility: sides are padded to a multiple of this; 0 means no padding.
        depth: see `complexity_table`.
        is_adaptive: whether RoIAlign takes more samples for larger regions.
    """
    size, padded = (f"{h} x {w}" for h, w in (image_size, padded_size(image_size, size_divisibility)))
    lines = [f"one image of {size} (height x width), padded to {padded}"]
    if cost.num_regions is not None:
        lines.append(f"second stage: {cost.num_regions} regions")
    lines += [
        f"\n{complexity_table(cost, depth)}\n",
        "GMAC: 10^9 multiply-adds, called FLOPs by fvcore; counting products and sums separately gives twice as many.",
        "Norms count 2 (batch) or 5 (group) per element. Activations: outputs of convolutions and matrix products.",
    ]
    if cost.num_regions is not None and is_adaptive:
        lines.append(
            f"POOLER_SAMPLING_RATIO 0 takes more samples for larger regions: counted as {ADAPTIVE_SAMPLES} x "
            f"{ADAPTIVE_SAMPLES} per cell."
        )
    operators = ", ".join(sorted(name.split("::")[-1] for name in cost.uncounted))
    return "\n".join([*lines, f"Not counted: {operators}."])
