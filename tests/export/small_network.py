"""A network of four convolutions as an ONNX model, named as those of a detector."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

STEM, TOWER, LOGITS, CENTER = (
    "backbone.body.stem.conv1",
    "rpn.head.cls_tower.0",
    "rpn.head.cls_logits",
    "rpn.head.centerness",
)
CHANNELS = 8


def small_network(seed: int = 0) -> onnx.ModelProto:
    """images (N, H, W, 3) uint8 and sizes (N, 2), which it ignores -> scores (N, 2, H, W), center (N, 1, H, W)."""
    rng = np.random.default_rng(seed)
    widths = {STEM: (CHANNELS, 3), TOWER: (CHANNELS, CHANNELS), LOGITS: (2, CHANNELS), CENTER: (1, CHANNELS)}
    tensors = [
        numpy_helper.from_array(rng.normal(0, 0.2, (*width, 3, 3)).astype(np.float32), f"model.{name}.weight")
        for name, width in widths.items()
    ]
    tensors.append(numpy_helper.from_array(np.float32(1 / 255), "scale"))

    def conv(name: str, source: str) -> onnx.NodeProto:
        return helper.make_node("Conv", [source, f"model.{name}.weight"], [name], name=f"node {name}", pads=[1] * 4)

    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], name="planes", perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "scale"], ["pixels"], name="normalize"),
        conv(STEM, "pixels"),
        helper.make_node("Relu", [STEM], ["features"], name="relu 1"),
        conv(TOWER, "features"),
        helper.make_node("Relu", [TOWER], ["hidden"], name="relu 2"),
        conv(LOGITS, "hidden"),
        conv(CENTER, "hidden"),
        helper.make_node("Sigmoid", [LOGITS], ["scores"], name="sigmoid"),
        helper.make_node("Identity", [CENTER], ["center"], name="center"),
    ]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3]),
        helper.make_tensor_value_info("sizes", TensorProto.INT64, ["N", 2]),
    ]
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2, "H", "W"]),
        helper.make_tensor_value_info("center", TensorProto.FLOAT, ["N", 1, "H", "W"]),
    ]
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def pictures(count: int, size: tuple[int, int] = (24, 32), seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Smooth coloured images as a network takes them."""
    rng = np.random.default_rng(seed)
    rows, columns = np.linspace(0, 1, size[0])[:, None, None], np.linspace(0, 1, size[1])[None, :, None]
    samples = []
    for _ in range(count):
        low, down, right = rng.uniform(0, 120, 3), rng.uniform(0, 60, 3), rng.uniform(0, 60, 3)
        image = (low + down * rows + right * columns).astype(np.uint8)[None]
        samples.append({"images": image, "sizes": np.array([size], dtype=np.int64)})
    return samples
