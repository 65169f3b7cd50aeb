"""Whether deformable convolutions stay one operator in a file, or become operators that every runtime has."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.log import get_logger

if TYPE_CHECKING:
    import onnx

OPERATOR = "DeformConv"
DEFORMABLE_FORMS = ("auto", "operator", "gather")
"""Values of --deformable: by gathering only where the runtime has no kernel; as the operator; by gathering."""


def with_deformable(
    express: Callable[[], onnx.ModelProto], form: str, has_kernel: Callable[[], bool]
) -> onnx.ModelProto:
    """The network that `express` makes, with its deformable convolutions in `form`, one of `DEFORMABLE_FORMS`.

    Args:
        has_kernel: whether the runtime that the file is for has the operator; asked only for a network that needs it.
    """
    from engine.layers.deform_conv import gathering

    if form != "gather":
        model = express()
        is_deformable = any(node.op_type == OPERATOR for node in model.graph.node)
        if form == "operator" or not is_deformable or has_kernel():
            return model
        get_logger(__name__).warning(
            "the ONNX Runtime installed here has no kernel for %s: deformable convolutions are written as gathering "
            "and matrix products, which give the same and take longer; --deformable operator keeps the operator",
            OPERATOR,
        )
    with gathering():
        return express()


def onnxruntime_has_kernel() -> bool:
    """Whether the ONNX Runtime installed here runs DeformConv on a CPU; True where none is installed."""
    from onnx import TensorProto, helper

    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        return True
    shapes = {"x": (1, 1, 1, 1), "weight": (1, 1, 1, 1), "offset": (1, 2, 1, 1)}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(OPERATOR, list(shapes), ["y"])], "one", inputs, [output])
    # Of the oldest format that may have the operator: only the kernel is asked for.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # a missing kernel is an answer here
    try:
        runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:  # its own kinds have no common base
        return False
    return True
