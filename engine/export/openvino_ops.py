"""ONNX operators for which OpenVINO has a kernel but whose conversion it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import openvino


def add_conversions(core: openvino.Core) -> None:
    """Teach `core` to read the operators of `CONVERSIONS` from ONNX files; a model that it saves needs them no more."""
    from openvino.frontend.onnx import ConversionExtension

    for name, conversion in CONVERSIONS.items():
        core.add_extension(ConversionExtension(name, conversion))


def deformable_convolution(node: Any) -> list[openvino.Output]:
    """ONNX's DeformConv (opset 19), with or without bias and mask, as OpenVINO's DeformableConvolution (opset 8)."""
    from openvino import opset8 as ops

    data, weight, offset = (node.get_input(i) for i in range(3))
    bias, mask = (node.get_input(i) if i < node.get_input_size() else None for i in (3, 4))
    pads = node.get_attribute("pads")  # top, left, bottom, right
    result = ops.deformable_convolution(
        data,
        offset,
        weight,
        node.get_attribute("strides"),
        pads[:2],
        pads[2:],
        node.get_attribute("dilations"),
        mask=mask,
        group=node.get_attribute("group", 1),
        deformable_group=node.get_attribute("offset_group", 1),
        bilinear_interpolation_pad=True,  # samples beyond the edge are 0, as in torchvision
    )
    if bias is not None:
        per_channel = ops.reshape(bias, np.array([1, -1, 1, 1]), special_zero=False)  # (1, C, 1, 1)
        result = ops.add(result, per_channel)
    return result.outputs()


CONVERSIONS = {"DeformConv": deformable_convolution}
"""(node of the ONNX model) -> outputs, by the name of its operator."""
