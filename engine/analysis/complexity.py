"""What a detector costs: parameters, operations and activations of each of its modules, for one image.

Operations are counted by fvcore in a traced evaluation pass. Its unit is one multiply-add (MAC); many papers call two
of them "2 FLOPs". An activation is an element of the output of a convolution or matrix product (Radosavovic et al.,
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

with warnings.catch_warnings():  # the package compiles losses that nobody asked for, in a way that torch warns of
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
    from fvcore.nn.jit_analysis import JitModelAnalysis
    from fvcore.nn.jit_handles import generic_activation_jit, get_shape

INTERPOLATION = 4
"""Multiply-adds of a bilinear sample."""
ADAPTIVE_SAMPLES = 2
"""Samples along each side of a cell that RoIAlign is counted with where the size of a region decides about them."""


@dataclass(frozen=True)
class ModuleCost:
    """What a module costs with all that is inside it.

    Attributes:
        name: dotted, "" for the whole model.
        parameters: numbers that are learned, or were.
        trainable: those of them that training changes.
        operations: multiply-adds.
        activations: see the module's docstring.
    """

    name: str
    parameters: int
    trainable: int
    operations: int
    activations: int


@dataclass(frozen=True)
class Complexity:
    """The cost of a pass over one image.

    Attributes:
        modules: in the order of the model, the whole model first.
        num_regions: regions that the second stage looks at; None for a detector of one stage.
        uncounted: how often each operator occurs that is not counted.
    """

    modules: list[ModuleCost]
    num_regions: int | None
    uncounted: Mapping[str, int]


class _Traceable(nn.Module):
    """A detector as a function from a tensor to tensors, all of them, for the tracer drops what nobody asks for."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        (found,) = self.detector([image])
        return found.boxes, found.scores, found.labels


@torch.no_grad()
def complexity(model: nn.Module, image_size: tuple[int, int], device: torch.device | str = "cpu") -> Complexity:
    """Trace `model`, which is on `device`, in evaluation mode on an image of noise of `image_size` (height, width)."""
    was_training = model.training
    traceable = _Traceable(model.eval())
    image = torch.randn(3, *image_size, generator=torch.Generator().manual_seed(0)).to(device)
    regions: list[int] = []
    hook = _count_regions(model, regions)
    operations = FlopCountAnalysis(traceable, (image,))
    operations.set_op_handle("torchvision::deform_conv2d", deform_conv2d_operations)
    operations.set_op_handle("torchvision::roi_align", roi_align_operations)
    activations = ActivationCountAnalysis(traceable, (image,))
    activations.set_op_handle("torchvision::deform_conv2d", generic_activation_jit("deform_conv2d"))
    counts = [_by_module(analysis) for analysis in (operations, activations)]
    if hook:
        hook.remove()
    uncounted = Counter(operations.unsupported_ops())
    model.train(was_training)
    return Complexity(
        [
            ModuleCost(
                name,
                sum(p.numel() for p in module.parameters()),
                sum(p.numel() for p in module.parameters() if p.requires_grad),
                *(int(count[f"detector.{name}".rstrip(".")]) for count in counts),
            )
            for name, module in model.named_modules()
        ],
        regions[0] if regions else None,
        uncounted,
    )


def _count_regions(model: nn.Module, found: list[int]) -> Any:
    roi_heads = getattr(model, "roi_heads", None)
    if roi_heads is None:
        return None
    return roi_heads.pooler.register_forward_pre_hook(lambda _, inputs: found.append(sum(map(len, inputs[1]))))


def _by_module(analysis: JitModelAnalysis) -> Mapping[str, float]:
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_module()


def deform_conv2d_operations(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Of the convolution (the offsets come from one of their own), and for each of its N C T H W inputs a bilinear
    sample and, if modulated, the product with the mask.

    Args:
        inputs, outputs: of `torchvision::deform_conv2d` in a traced graph.
    """
    images, weight = get_shape(inputs[0]), get_shape(inputs[1])  # (N, C, ...), (out, C / groups, kernel height, width)
    out = get_shape(outputs[0])  # (N, out, H, W)
    is_modulated = bool(inputs[-1].toIValue())
    positions = out[0] * out[2] * out[3]
    sampled = positions * images[1] * weight[2] * weight[3]
    return Counter(deform_conv2d=positions * math.prod(weight) + sampled * (INTERPOLATION + is_modulated))


def roi_align_operations(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """A bilinear sample for each of the samples in each of P C S S cells.

    Args:
        inputs, outputs: of `torchvision::roi_align` in a traced graph.
    """
    samples = inputs[5].toIValue()
    samples = samples if samples > 0 else ADAPTIVE_SAMPLES
    return Counter(roi_align=math.prod(get_shape(outputs[0])) * samples**2 * INTERPOLATION)


def complexity_table(cost: Complexity, depth: int) -> str:
    """The modules down to `depth` dots (0: the whole only) that have any cost.

    Raises:
        ValueError: `depth` is negative.
    """
    if depth < 0:
        raise ValueError(f"depth must not be negative, is {depth}")
    rows = [
        (
            module.name or "all",
            f"{module.parameters:,}",
            f"{module.trainable:,}",
            f"{module.operations / 1e9:.3f}",
            f"{module.activations / 1e6:.3f}",
        )
        for module in cost.modules
        if _depth(module.name) <= depth and (module.parameters or module.operations or module.activations)
    ]
    headers = ("module", "parameters", "trainable", "GMAC", "activations (M)")
    return tabulate(rows, headers, colalign=("left", *["right"] * 4), disable_numparse=True)


def complexity_report(
    cost: Complexity, image_size: tuple[int, int], size_divisibility: int, depth: int, is_adaptive: bool
) -> str:
    """The table, above it the image, below it how things were counted.

    Args:
        cost: of a model.
        image_size: height and width of the image.
        size_divisibility: sides are padded to a multiple of it; 0 is off.
        depth: see `complexity_table`.
        is_adaptive: RoIAlign takes more samples from larger regions.
    """
    height, width = image_size
    step = max(size_divisibility, 1)
    padded_height, padded_width = (-(-side // step) * step for side in image_size)
    lines = [f"one image of {height} x {width} (height x width), padded to {padded_height} x {padded_width}"]
    if cost.num_regions is not None:
        lines.append(f"second stage: {cost.num_regions} regions")
    lines += [
        f"\n{complexity_table(cost, depth)}\n",
        "GMAC: 10^9 multiply-adds, which fvcore calls FLOPs; who counts products and sums apart has twice as many.",
        "Norms count 2 (batch) or 5 (group) an element. Activations: outputs of convolutions and matrix products.",
    ]
    if cost.num_regions is not None and is_adaptive:
        lines.append(
            f"POOLER_SAMPLING_RATIO 0 takes more samples from larger regions: counted as {ADAPTIVE_SAMPLES} x "
            f"{ADAPTIVE_SAMPLES} a cell."
        )
    operators = ", ".join(sorted(name.split("::")[-1] for name in cost.uncounted))
    return "\n".join([*lines, f"Not counted: {operators}."])


def _depth(name: str) -> int:
    return name.count(".") + 1 if name else 0
