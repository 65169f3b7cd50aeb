"""The operators of ONNX and OpenVINO networks as an `OperatorGraph`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from engine.export.float_layers import OperatorGraph

if TYPE_CHECKING:
    import onnx
    import openvino

ONNX_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "DeformConv"})
OPENVINO_LAYERS = frozenset(
    {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul", "DeformableConvolution"}
)
RESHAPING = frozenset({"Reshape", "Transpose", "Unsqueeze", "Squeeze", "Convert", "Cast", "Identity"})
"""Operators that may stand between a parameter and its layer."""


def onnx_operators(model: onnx.ModelProto) -> OperatorGraph:
    """The nodes of the main graph, by name."""
    nodes = model.graph.node
    maker = {output: node for node in nodes for output in node.output}
    readers: Mapping[str, list[str]] = defaultdict(list)
    for node in nodes:
        for tensor in node.input:
            readers[tensor].append(node.name)
    graph = OperatorGraph({node.name: [each for out in node.output for each in readers[out]] for node in nodes})

    def parameter(tensor: str) -> str:
        while (node := maker.get(tensor)) and node.op_type in RESHAPING:
            tensor = node.input[0]
        return "" if node else tensor

    for node in nodes:
        if node.op_type in ONNX_LAYERS and (weight := _first_weight(map(parameter, node.input))):
            graph.weights[node.name] = weight
    return graph


def openvino_operators(model: openvino.Model) -> OperatorGraph:
    """The operators, by friendly name."""
    graph = OperatorGraph()
    for op in model.get_ops():
        targets = [target for output in op.outputs() for target in output.get_target_inputs()]
        graph.followers[op.get_friendly_name()] = [target.get_node().get_friendly_name() for target in targets]
        if op.get_type_name() in OPENVINO_LAYERS and (weight := _first_weight(map(_parameter, op.inputs()))):
            graph.weights[op.get_friendly_name()] = weight
    return graph


def _parameter(tensor: openvino.Input) -> str:
    """Name of the constant that an operator takes there; "" if it is none."""
    node = tensor.get_source_output().get_node()
    while node.get_type_name() in RESHAPING:
        node = node.input_value(0).get_node()
    return node.get_friendly_name() if node.get_type_name() == "Constant" else ""


def _first_weight(names: map[str]) -> str:
    """The first that a module's parameter `weight` can have, without the wrapper that is exported around the model."""
    return next((name.removeprefix("model.") for name in names if name.endswith(".weight")), "")
